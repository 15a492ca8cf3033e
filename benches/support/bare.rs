//! The limit that finhook is measured against: an axum handler that reads the body and answers 200, and nothing else.

use std::net::TcpListener;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;

#[allow(clippy::disallowed_methods, reason = "what is compared with is axum as it comes")]
/// Serves for ever; as many worker threads as there are cores to run on, as `#[tokio::main]` has it.
pub(crate) fn serve(listener: TcpListener) -> super::Result<()> {
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let app = Router::new().route("/webhooks/fin", post(read_and_answer));
        axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), app).await?;
        Ok(())
    })
}

async fn read_and_answer(body: Bytes) -> StatusCode {
    if body.is_empty() { StatusCode::BAD_REQUEST } else { StatusCode::OK }
}
