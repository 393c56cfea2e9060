//! Messages and topics: what arrived, and sending it through the triggers once more.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::{List, raw};
use super::request::{Id, Params, page};
use crate::http::{App, Problem};
use crate::model::{Message, MessageId, RunId, Timestamp};
use crate::store::{MessageFilter, TopicSummary};

pub fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_topics)).routes(routes!(list_messages)).routes(routes!(show_message))
}

pub fn acting() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(replay_message))
}

/// A named inbox of messages.
#[derive(Serialize, ToSchema)]
#[schema(as = Topic)]
struct TopicView {
    topic: String,
    messages: u64,
    last_received: Option<Timestamp>,
}

impl From<TopicSummary> for TopicView {
    fn from(summary: TopicSummary) -> Self {
        Self { topic: summary.topic, messages: summary.messages, last_received: summary.last_received }
    }
}

/// List topics
///
/// Messages of webhooks are filed under `i/` and the webhook's path.
#[utoipa::path(get, path = "/topics", tag = "messages", responses((status = 200, body = List<TopicView>)))]
async fn list_topics(State(app): State<App>) -> Result<Json<List<TopicView>>, Problem> {
    let topics = app.engine.store().topics().await?;
    Ok(Json(List::whole(topics.into_iter().map(TopicView::from).collect())))
}

/// A message, without its data.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
struct MessageView {
    id: MessageId,
    topic: String,
    received_at: Timestamp,
    /// Not to be delivered earlier.
    deliver_at: Option<Timestamp>,
    /// A second message on the same topic with the same key is the first one repeated.
    dedupe_key: Option<String>,
    /// Bytes of JSON.
    size: usize,
}

impl From<Message> for MessageView {
    fn from(message: Message) -> Self {
        Self {
            id: message.id,
            topic: message.topic,
            received_at: message.received_at,
            deliver_at: message.deliver_at,
            dedupe_key: message.dedupe_key,
            size: message.data.len(),
        }
    }
}

/// A message with its data.
#[derive(Serialize, ToSchema)]
#[schema(as = MessageDetail)]
struct MessageDetailView {
    #[serde(flatten)]
    message: MessageView,
    /// How it came: method, path, query parameters and headers. Credentials are taken out.
    #[schema(value_type = Object)]
    request: crate::model::Request,
    /// What a job gets as `state.data`.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
}

#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MessageQuery {
    /// Only messages of this topic.
    pub topic: Option<String>,
    /// Received at or after this time, RFC 3339.
    pub since: Option<Timestamp>,
    /// Received before this time, RFC 3339.
    pub until: Option<Timestamp>,
    /// Only messages with this text in the data, the id, or the deduplication key.
    pub q: Option<String>,
    /// `next` of the page before.
    pub after: Option<MessageId>,
    /// Items on a page, from 1 to 500; 50 if absent.
    pub limit: Option<usize>,
}

impl MessageQuery {
    pub fn filter(&self) -> MessageFilter {
        MessageFilter { topic: self.topic.clone(), since: self.since, until: self.until, text: self.q.clone() }
    }
}

/// List messages
#[utoipa::path(
    get,
    path = "/messages",
    tag = "messages",
    params(MessageQuery),
    responses((status = 200, body = List<MessageView>))
)]
async fn list_messages(
    State(app): State<App>,
    Params(query): Params<MessageQuery>,
) -> Result<Json<List<MessageView>>, Problem> {
    let page = app.engine.store().messages(query.filter(), page(query.after, query.limit)?).await?;
    Ok(Json(List::of(page)))
}

/// Show a message with its data
#[utoipa::path(
    get,
    path = "/messages/{id}",
    tag = "messages",
    params(("id" = MessageId, Path)),
    responses((status = 200, body = MessageDetailView))
)]
async fn show_message(State(app): State<App>, Id(id): Id<MessageId>) -> Result<Json<MessageDetailView>, Problem> {
    let message = app.engine.store().message(id).await?.ok_or_else(|| Problem::not_found(format!("message {id}")))?;
    let (request, data) = (message.request.clone(), raw(message.data.clone()));
    Ok(Json(MessageDetailView { message: message.into(), request, data }))
}

/// The runs that a message started.
#[derive(Serialize, ToSchema)]
struct Replayed {
    runs: Vec<StartedRun>,
}

#[derive(Serialize, ToSchema)]
struct StartedRun {
    id: RunId,
    workflow: String,
}

/// Hold a message against the triggers as they are now, and start what it matches
#[utoipa::path(
    post,
    path = "/messages/{id}/replay",
    tag = "messages",
    params(("id" = MessageId, Path)),
    responses((status = 200, body = Replayed))
)]
async fn replay_message(State(app): State<App>, Id(id): Id<MessageId>) -> Result<Json<Replayed>, Problem> {
    let runs = app.engine.replay(id).await?;
    Ok(Json(Replayed { runs: runs.into_iter().map(|(id, workflow)| StartedRun { id, workflow }).collect() }))
}
