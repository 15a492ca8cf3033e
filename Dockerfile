# finhook in a container: the binary, the C library it is linked to, and the certificates of the public authorities.
# No shell, no package manager. About 15 MB.
#
#   docker build -t finhook .
#   docker run --name finhook -p 8080:8080 -v finhook-data:/data finhook
#
# podman and buildah: `podman build --format docker -t finhook .`, as the OCI format has no HEALTHCHECK.
#
# It runs without any configuration. To change something:
# - one setting: `-e FINHOOK__SERVER__MAX_BODY_BYTES=262144`, the names as in docs/CONFIGURATION.md;
# - a file, or a directory with `default.toml` and `$FINHOOK_ENV.toml`:
#   `-v ./config:/etc/finhook:ro -e FINHOOK_CONFIG=/etc/finhook`;
# - secrets: as files, see compose.yaml. They must be readable for user 65532.
# The admin listener stays on the container's own loopback: `docker exec finhook finhook sinks`.

# In full, as podman and buildah guess no registry.
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /build

# The dependencies, in a layer that only a change of the manifests makes anew: sources that are empty stand in for ours.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --profile dist --locked \
    && rm -r src

COPY config config
COPY src src
# Cargo goes by modification times, and the copied files may be older than the stand-ins' build.
RUN touch src/main.rs src/lib.rs && cargo build --profile dist --locked

# The root of the final image. A static binary would need the very same C library at run time for looking up names, so
# the shared one comes along: it has the lookups by file and by DNS built in.
RUN mkdir -p /root-fs/data /root-fs/etc/ssl/certs /root-fs/usr/local/bin \
    && cp target/dist/finhook /root-fs/usr/local/bin/ \
    && ldd target/dist/finhook | grep -o '/[^ ]*' | sort -u | xargs cp -L --parents -t /root-fs \
    && cp -L /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \
    && echo 'finhook:x:65532:65532:finhook:/data:/sbin/nologin' > /root-fs/etc/passwd \
    && echo 'finhook:x:65532:' > /root-fs/etc/group \
    && echo 'hosts: files dns' > /root-fs/etc/nsswitch.conf \
    && chown 65532:65532 /root-fs/data

FROM scratch
LABEL org.opencontainers.image.title="finhook" \
      org.opencontainers.image.description="A durable, routing webhook receiver for Intercom's Fin Agent API" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /root-fs /

ENV PATH=/usr/local/bin \
    FINHOOK__JOURNAL__PATH=/data/finhook.db \
    SQLITE_TMPDIR=/data
USER 65532:65532
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["finhook", "healthcheck"]
ENTRYPOINT ["finhook"]
CMD ["serve"]
