//! What arrives.

use serde::{Deserialize, Serialize};

use super::{MessageId, Timestamp};

/// A message as it was received. It never changes.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: MessageId,
    pub topic: String,
    /// What a job gets as `state.data`: JSON text.
    pub data: String,
    /// The body as it came, where it was not the JSON text in `data`.
    pub body: Option<Vec<u8>>,
    pub request: Request,
    pub received_at: Timestamp,
    /// Not to be delivered earlier.
    pub deliver_at: Option<Timestamp>,
    /// A second message on the same topic with the same key is the first one repeated.
    pub dedupe_key: Option<String>,
}

/// How a message came: a job gets it as `state.request`. Credentials in it are replaced before it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    pub path: String,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub query_params: serde_json::Map<String, serde_json::Value>,
    /// Names in lower case. A header that came several times is one text, joined by commas.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub headers: serde_json::Map<String, serde_json::Value>,
}
