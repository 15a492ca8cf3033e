// What a Node developer would write for Fin's webhooks with Fastify: the raw body, its HMAC, compared in constant time.
// Stores nothing. Run by `cargo bench --bench load -- peers`, or by hand: PORT=3000 SECRET=... node fastify.mjs
import { createHmac, timingSafeEqual } from 'node:crypto'
import Fastify from 'fastify'

const app = Fastify({ logger: false })
app.removeAllContentTypeParsers()
app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => done(null, body))

app.post('/webhooks/fin', async (request, reply) => {
  const given = request.headers['x-fin-agent-api-webhook-signature'] ?? ''
  const expected = createHmac('sha256', process.env.SECRET).update(request.body).digest()
  const digits = Buffer.from(given.replace(/^sha256=/, ''), 'hex')
  if (digits.length !== expected.length || !timingSafeEqual(digits, expected)) {
    return reply.code(401).send({ error: 'signature' })
  }
  const event = JSON.parse(request.body)
  return { outcome: 'accepted', event: event.event_name }
})

await app.listen({ port: Number(process.env.PORT ?? 3000), host: '127.0.0.1' })
