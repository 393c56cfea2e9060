//! What starts a workflow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Criteria;

/// What starts a workflow, under a name that is unique within the project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    pub name: String,
    pub kind: TriggerKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// A message on a topic.
    Message {
        topic: String,
        criteria: Criteria,
        /// A JavaScript expression of `data` and `request` that must hold too.
        condition: Option<String>,
    },
    /// A request to a path of its own.
    Webhook(Webhook),
    /// The clock.
    Cron(Cron),
    /// The end of the last run, this long ago; the first time, the start of the service. Each run goes on with the last
    /// final state, the first with the workflow's initial state.
    Every { interval: Duration },
}

/// A path that starts one workflow: `/i/<path>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Webhook {
    pub path: String,
    pub enabled: bool,
    pub reply: Reply,
    /// Who may call: any of these, or everyone if there are none.
    pub auth: Vec<WebhookAuth>,
}

/// When a webhook's caller gets its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// As soon as the message is kept.
    #[default]
    BeforeStart,
    /// When the run has ended, with its final state.
    AfterCompletion { success_code: u16, error_code: u16 },
}

impl Reply {
    /// What Lightning answers when nothing else is set.
    pub const AFTER_COMPLETION: Self = Self::AfterCompletion { success_code: 201, error_code: 201 };
}

/// One way to prove that a request may start the workflow. The secrets are in the credential named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WebhookAuth {
    pub scheme: AuthScheme,
    /// Where the secrets are. Several of a kind are all accepted, so that a key can be replaced without a gap.
    pub credential: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthScheme {
    /// `Authorization: Basic`: `username` and `password` of the credential.
    Basic,
    /// The header `x-api-key`: `key` of the credential, a text or a list.
    ApiKey,
    /// `Authorization: Bearer`: `token` of the credential, a text or a list.
    Bearer,
    /// A signature of the body: `secret` of the credential, a text or a list.
    Signature(Signature),
}

/// How a sender signs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// <https://www.standardwebhooks.com>
    StandardWebhooks,
    Github,
    Stripe,
    Shopify,
    /// HMAC-SHA-256 of the body in a header.
    Generic {
        header: String,
        /// What stands before the digest, e.g. `sha256=`.
        prefix: String,
        encoding: SignatureEncoding,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureEncoding {
    #[default]
    Hex,
    Base64,
}

/// Times at which a workflow starts by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cron {
    /// Five fields, or six with seconds first.
    pub expression: String,
    /// An IANA time zone.
    pub timezone: chrono_tz::Tz,
    pub misfire: Misfire,
    /// Start although the run before has not ended.
    pub overlap: bool,
}

/// What happens to times that passed while the service was down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// Nothing.
    #[default]
    Skip,
    /// One run for all of them.
    Once,
    /// One run for each, the oldest first, up to a bound.
    All,
}
