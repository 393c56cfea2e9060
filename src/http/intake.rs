//! What inbox and webhooks have in common: from a request to a message that is kept, and to the end of its runs.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::future::try_join_all;

use super::body::Bodies;
use super::delivery::{Delivery, Wait};
use super::{App, Problem, request};
use crate::engine::{Incoming, Receipt, Target};
use crate::model::{Priority, RunId};
use crate::store::RunDetail;

/// A message that is kept.
pub struct Taken {
    pub receipt: Receipt,
    /// How long its sender waits for the runs to end, if at all.
    pub wait: Option<Duration>,
}

/// Takes a request in as a message. `wait` says how long its sender waits, given what the request says of that.
pub async fn take_in(
    app: &App,
    bodies: &Bodies,
    target: Target<'_>,
    (parts, body): (&Parts, Bytes),
    wait: impl FnOnce(Wait) -> Option<Duration>,
) -> Result<Taken, Problem> {
    if app.engine.served().workflows.is_empty() {
        // Otherwise the message would match nothing, and be lost on those it is for.
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE)
            .with_detail("no workflow is being served yet; nothing was kept")
            .retry_after(Duration::from_secs(2)));
    }
    let content = bodies.content(&parts.headers, body).await?;
    let event = content.event.as_ref();
    let now = app.engine.now();
    let delivery = Delivery::of(parts, event, now)?;
    let is_later = delivery.deliver_at.is_some_and(|time| time > now);
    let wait = wait(delivery.wait).filter(|_| !is_later).map(|wait| wait.min(app.config.wait_limit.0));
    let same = (content.data.clone(), content.raw.clone());
    let is_named = delivery.dedupe_key.is_some();
    let incoming = Incoming {
        request: request::described(parts, event),
        data: content.data,
        value: content.value,
        body: content.raw,
        dedupe_key: delivery.dedupe_key,
        deliver_at: delivery.deliver_at,
        priority: if wait.is_some() { Priority::Immediate } else { Priority::Normal },
        traceparent: delivery.traceparent,
    };
    let receipt = app.engine.receive(target, incoming).await?;
    if is_named && receipt.duplicate {
        check_same(app, &receipt, same).await?;
    }
    Ok(Taken { receipt, wait })
}

/// A key that comes again must name the same message.
async fn check_same(app: &App, receipt: &Receipt, (data, raw): (String, Option<Vec<u8>>)) -> Result<(), Problem> {
    match app.engine.store().message(receipt.message).await? {
        Some(kept) if kept.data != data || kept.body != raw => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
            .with_detail(format!(
                "message {} came with this key and another body; give each message a key of its own",
                receipt.message
            ))),
        _ => Ok(()),
    }
}

/// Waits until all runs have ended. None: some have not.
pub async fn ends(app: &App, runs: &[(RunId, String)], within: Duration) -> Result<Option<Vec<RunDetail>>, Problem> {
    let ended = try_join_all(runs.iter().map(|(run, _)| app.engine.end_of(*run, within))).await?;
    if ended.iter().any(Option::is_none) {
        return Ok(None);
    }
    let details = try_join_all(runs.iter().map(|(run, _)| app.engine.store().run(*run))).await?;
    Ok(details.into_iter().collect())
}
