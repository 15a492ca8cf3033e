//! The admin API and its command line, against a whole finhook.

use crate::support::app::{TestApp, event};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_event_is_recognised_after_a_restart() {
    let app = TestApp::start("").await;
    let body = event("fin_replied", "c1", 1);
    let id = app.accept(&body).await;
    let app = TestApp::start_in(app.stop().await, "").await;

    let (status, answer) = app.post(&body).await;

    assert_eq!((status, answer["outcome"].as_str()), (200, Some("duplicate")));
    assert_eq!(answer["id"], id);
    app.stop().await;
}
