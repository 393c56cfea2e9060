//! What happens, as it happens: server-sent events.
//!
//! Events tell of what is in the store already. Nothing is kept for a client that was away: it reads the lists, or
//! opens the stream of a run anew, which begins with all there is. So `Last-Event-ID` has no meaning here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::{Id, Params};
use super::runs::RunDetailView;
use crate::engine::{Event, EventKind};
use crate::http::{App, Problem};
use crate::model::{RunId, RunState};

/// How often a stream with nothing to say shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stream_events)).routes(routes!(stream_run))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    RunCreated,
    TaskStarted,
    Log,
    TaskEnded,
    RunEnded,
}

impl EventType {
    fn of(kind: &EventKind) -> Self {
        match kind {
            EventKind::RunCreated { .. } => Self::RunCreated,
            EventKind::TaskStarted { .. } => Self::TaskStarted,
            EventKind::Log { .. } => Self::Log,
            EventKind::TaskEnded { .. } => Self::TaskEnded,
            EventKind::RunEnded { .. } => Self::RunEnded,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::RunCreated => "run_created",
            Self::TaskStarted => "task_started",
            Self::Log => "log",
            Self::TaskEnded => "task_ended",
            Self::RunEnded => "run_ended",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Only events of this run.
    run: Option<RunId>,
    /// Only events of this workflow.
    workflow: Option<String>,
    /// Only events of these types; may be repeated.
    types: Vec<EventType>,
}

impl EventQuery {
    fn wants(&self, event: &Event) -> bool {
        self.run.is_none_or(|run| run == event.run)
            && self.workflow.as_ref().is_none_or(|workflow| *workflow == event.workflow)
            && (self.types.is_empty() || self.types.contains(&EventType::of(&event.kind)))
    }
}

type Frames = Sse<axum::response::sse::KeepAliveStream<Pin<Box<dyn Stream<Item = Result<Frame, Infallible>> + Send>>>>;

/// What happens, as it happens
///
/// Server-sent events from now on: `run_created`, `task_started`, `log`, `task_ended`, `run_ended`, each with a JSON
/// object that has `type`, `time`, `run` and `workflow`. A client that reads too slowly gets `lagged`, with the number
/// of events it missed. Comments keep the connection open. The stream ends when the service stops.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(EventQuery),
    responses((status = 200, content_type = "text/event-stream", body = String))
)]
async fn stream_events(State(app): State<App>, Params(query): Params<EventQuery>) -> Frames {
    let live = Live { receiver: app.engine.events().subscribe(), stopping: Box::pin(app.engine.stopping()) };
    frames(stream::unfold((live, query), |(mut live, query)| async move {
        let frame = loop {
            match live.next().await? {
                Heard::Event(event) if query.wants(&event) => break event_frame(&event),
                Heard::Event(_) => {}
                Heard::Lagged(missed) => break lagged_frame(missed),
            }
        };
        Some((frame, (live, query)))
    }))
}

/// One run, as it goes
///
/// Begins with `run`: the run, its tasks and attempts so far. Then events as they happen, until `run_ended`, which is
/// the last. After `lagged` comes `run` again. What an attempt logged before the stream was opened is in its log when
/// it ends; what happens while `run` is read may be told twice.
#[utoipa::path(
    get,
    path = "/runs/{id}/events",
    tag = "events",
    params(("id" = RunId, Path)),
    responses((status = 200, content_type = "text/event-stream", body = String))
)]
async fn stream_run(State(app): State<App>, Id(id): Id<RunId>) -> Result<Frames, Problem> {
    // In this order, so that nothing falls between.
    let live = Live { receiver: app.engine.events().subscribe(), stopping: Box::pin(app.engine.stopping()) };
    let mut watch = RunWatch { app, id, live, waiting: VecDeque::new(), ended: false };
    if !watch.catch_up().await? {
        return Err(Problem::not_found(format!("run {id}")));
    }
    Ok(frames(stream::unfold(watch, |mut watch| async move { watch.next().await.map(|frame| (frame, watch)) })))
}

fn frames(stream: impl Stream<Item = Frame> + Send + 'static) -> Frames {
    let stream: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(futures_util::StreamExt::map(stream, Ok));
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// What is heard from the engine.
enum Heard {
    Event(Event),
    Lagged(u64),
}

struct Live {
    receiver: Receiver<Event>,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Live {
    /// None: the service stops.
    async fn next(&mut self) -> Option<Heard> {
        tokio::select! {
            heard = self.receiver.recv() => match heard {
                Ok(event) => Some(Heard::Event(event)),
                Err(RecvError::Lagged(missed)) => Some(Heard::Lagged(missed)),
                Err(RecvError::Closed) => None,
            },
            () = &mut self.stopping => None,
        }
    }
}

/// A run that somebody watches.
struct RunWatch {
    app: App,
    id: RunId,
    live: Live,
    waiting: VecDeque<Frame>,
    ended: bool,
}

impl RunWatch {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.waiting.pop_front() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            match self.live.next().await? {
                Heard::Event(event) if event.run == self.id => {
                    self.ended = matches!(event.kind, EventKind::RunEnded { .. });
                    return Some(event_frame(&event));
                }
                Heard::Event(_) => {}
                Heard::Lagged(missed) => {
                    self.waiting.push_back(lagged_frame(missed));
                    // The end of the run may be among what was missed.
                    self.catch_up().await.ok()?;
                }
            }
        }
    }

    /// Tells all there is in the store. False: there is no such run.
    async fn catch_up(&mut self) -> Result<bool, Problem> {
        let Some(detail) = self.app.engine.store().run(self.id).await? else { return Ok(false) };
        let (state, workflow) = (detail.run.state, detail.run.workflow.clone());
        self.waiting.push_back(frame("run", &RunDetailView::from(detail)));
        if state.is_final() {
            self.waiting.push_back(self.end(workflow, state));
            self.ended = true;
        }
        Ok(true)
    }

    fn end(&self, workflow: String, state: RunState) -> Frame {
        let kind = EventKind::RunEnded { state };
        event_frame(&Event { time: self.app.engine.now(), run: self.id, workflow, kind })
    }
}

fn event_frame(event: &Event) -> Frame {
    frame(EventType::of(&event.kind).name(), event)
}

fn lagged_frame(missed: u64) -> Frame {
    frame("lagged", &serde_json::json!({ "missed": missed }))
}

fn frame(name: &str, data: &impl Serialize) -> Frame {
    // JSON text has no line breaks, so it is one line of data.
    Frame::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}
