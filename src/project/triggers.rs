//! The triggers of a project file: what starts a workflow, and what leads from one job to the next.

use std::collections::HashMap;
use std::ops::Range;
use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use croner::parser::{CronParser, Seconds, Year};
use serde_json::Value;

use super::credentials::Credentials;
use super::inline::Inline;
use super::problem::{Source, quoted};
use super::reader::{Fields, Reader};
use super::yaml::{Entry, Kind, Node};
use crate::compile::check_expression;
use crate::model::{
    AuthScheme, Condition, Criteria, Cron, Misfire, Reply, Signature, SignatureEncoding, TriggerKind, Webhook,
    WebhookAuth,
};

/// Where messages arrive that name no topic.
pub(super) const INBOX: &str = "inbox";

/// A trigger under its name.
pub(super) struct Trigger {
    pub name: String,
    pub span: Range<usize>,
    /// None if it could not be read.
    pub starts: Option<Starts>,
}

/// When the jobs of a trigger run.
pub(super) enum Starts {
    /// As the first step of a workflow.
    Workflow(TriggerKind),
    /// After a job of this name.
    After { job: String, span: Range<usize>, condition: Condition },
}

/// The keys of which a trigger has exactly one.
const KINDS: [&str; 5] = ["criteria", "cron", "success", "failure", "webhook"];

pub(super) fn read(node: &Node, reader: &mut Reader, credentials: &mut Credentials) -> Vec<Trigger> {
    let mut paths = HashMap::new();
    let entries = reader.entries(node, "`triggers`", "a mapping of names and triggers");
    let mut triggers = Vec::with_capacity(entries.len());
    for Entry { key, key_span, value } in entries {
        let starts = trigger(value, key, key_span, reader, credentials);
        if let Some(Starts::Workflow(TriggerKind::Webhook(webhook))) = &starts
            && let Some(other) = paths.insert(webhook.path.clone(), key)
        {
            let message = format!("the path {} is the webhook {}'s already", quoted(&webhook.path), quoted(other));
            reader.error_with_hint(key_span, message, "give each webhook a path of its own");
        }
        triggers.push(Trigger { name: key.clone(), span: key_span.clone(), starts });
    }
    triggers
}

fn trigger(
    node: &Node,
    name: &str,
    name_span: &Range<usize>,
    reader: &mut Reader,
    credentials: &mut Credentials,
) -> Option<Starts> {
    let Kind::Map(entries) = &node.kind else {
        let what = format!("the trigger {}", quoted(name));
        reader.wrong_type(node, &what, "one of criteria, cron, success, failure and webhook, with its value");
        return None;
    };
    let kinds: Vec<&Entry> = entries.iter().filter(|entry| KINDS.contains(&entry.key.as_str())).collect();
    let kind = match kinds[..] {
        [kind] => kind,
        [first, second, ..] => {
            let message = format!("the trigger {} has `{}` and `{}`", quoted(name), first.key, second.key);
            reader.error_with_hint(&second.key_span, message, "make two triggers of it: a job may name several");
            return None;
        }
        [] => {
            // Perhaps it is only misspelt, which says what the other keys cannot.
            let close = |entry: &&Entry| super::problem::closest(&entry.key, KINDS).is_some();
            match entries.iter().find(close) {
                Some(entry) => {
                    let message = format!("a trigger has no key {}", quoted(&entry.key));
                    reader.unknown(&entry.key_span, message, &entry.key, KINDS, "");
                }
                None => {
                    let message = format!("the trigger {} does not say when it starts a job", quoted(name));
                    reader.error_with_hint(
                        name_span,
                        message,
                        "give it one of criteria, cron, success, failure and webhook",
                    );
                }
            }
            return None;
        }
    };
    let (what, keys): (&str, &[&str]) = match kind.key.as_str() {
        "criteria" => ("a message trigger", &["criteria", "condition", "topic", "type"]),
        "cron" => ("a cron trigger", &["cron", "timezone", "misfire", "overlap", "type"]),
        "webhook" => ("a webhook", &["webhook", "reply", "success_code", "error_code", "enabled", "auth", "type"]),
        _ => ("a flow trigger", &[kind.key.as_str(), "type"]),
    };
    let fields = reader.fields(node, what, keys)?;
    check_type(&fields, &kind.key, reader);
    match kind.key.as_str() {
        "criteria" => message(&fields, kind, reader).map(Starts::Workflow),
        "cron" => cron(&fields, kind, reader).map(Starts::Workflow),
        "webhook" => webhook(&fields, kind, reader, credentials).map(Starts::Workflow),
        flow => {
            let job = reader.name(&kind.value, &format!("`{flow}`"))?.to_owned();
            let condition = if flow == "success" { Condition::OnSuccess } else { Condition::OnFailure };
            Some(Starts::After { job, span: kind.value.span.clone(), condition })
        }
    }
}

/// Some tools write `type:` beside the key that says it all.
fn check_type(fields: &Fields, kind: &str, reader: &mut Reader) {
    let Some(node) = fields.get("type") else { return };
    let types = [
        ("message", "criteria"),
        ("cron", "cron"),
        ("success", "success"),
        ("failure", "failure"),
        ("webhook", "webhook"),
    ];
    if let Some(said) = reader.keyword(node, "`type`", &types)
        && said != kind
    {
        let hint = "take the `type` out: it is not needed";
        reader.error_with_hint(&node.span, format!("the trigger has `{kind}`, which is of another type"), hint);
    }
}

fn message(fields: &Fields, kind: &Entry, reader: &mut Reader) -> Option<TriggerKind> {
    let criteria = criteria(&kind.value, reader);
    let condition = fields.get("condition").and_then(|node| {
        let text = reader.text(node, "`condition`")?;
        if text.trim().is_empty() {
            reader.error_with_hint(&node.span, "the condition is empty", "write an expression such as data.age > 5");
        } else if let Err(error) = check_expression("condition", text) {
            for problem in error.diagnostics {
                reader.error(&node.span, format!("the condition does not compile: {}", problem.message));
            }
        }
        Some(text.to_owned())
    });
    let topic = match fields.get("topic") {
        Some(node) => topic(node, reader)?,
        None => INBOX.to_owned(),
    };
    Some(TriggerKind::Message { topic, criteria: criteria?, condition })
}

fn topic(node: &Node, reader: &mut Reader) -> Option<String> {
    const LONGEST: usize = 255;
    let topic = reader.name(node, "`topic`")?;
    let is_fit = |c: char| c.is_alphanumeric() || "._-".contains(c);
    if topic.len() > LONGEST || !topic.chars().all(is_fit) {
        let hint = "write letters, digits, `.`, `_` and `-`, 255 bytes at most";
        reader.error_with_hint(&node.span, "this cannot be the name of a topic", hint);
        return None;
    }
    Some(topic.to_owned())
}

/// A mapping, or the JSON text of one.
fn criteria(node: &Node, reader: &mut Reader) -> Option<Criteria> {
    const HINT: &str = "write a mapping, such as {form: registration}; {} is for every message";
    let value = match node.as_text() {
        Some(text) if text.trim_start().starts_with('{') => match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.split(" at line ").next().unwrap_or(&reason);
                let message = format!("the criteria are not valid JSON: {reason}");
                reader.error_with_hint(&json_place(node, &error, reader.source), message, HINT);
                return None;
            }
        },
        _ => node.to_value(),
    };
    match value {
        Value::Object(pattern) => Some(Criteria(pattern)),
        _ => {
            reader.error_with_hint(&node.span, "the criteria are not a set of names and values", HINT);
            None
        }
    }
}

/// Where in the file an error in JSON text is.
fn json_place(node: &Node, error: &serde_json::Error, source: &Source) -> Range<usize> {
    let behind = error.column().saturating_sub(1);
    match Inline::of(node, source).byte(error.line(), behind, source) {
        Some(start) => start..start + 1,
        None => node.span.clone(),
    }
}

fn cron(fields: &Fields, kind: &Entry, reader: &mut Reader) -> Option<TriggerKind> {
    let expression = cron_expression(&kind.value, reader);
    let timezone = fields.get("timezone").map_or(Some(Tz::UTC), |node| {
        let name = reader.text(node, "`timezone`")?;
        let timezone = Tz::from_str(name).ok();
        if timezone.is_none() {
            let message = format!("there is no time zone {}", quoted(name));
            let names = TZ_VARIANTS.iter().map(|zone| zone.name());
            reader.unknown(&node.span, message, name, names, "write a name such as Africa/Nairobi");
        }
        timezone
    });
    let misfires = [("skip", Misfire::Skip), ("once", Misfire::Once), ("all", Misfire::All)];
    let misfire = fields.get("misfire").and_then(|node| reader.keyword(node, "`misfire`", &misfires));
    let overlap = fields.get("overlap").and_then(|node| reader.boolean(node, "`overlap`"));
    Some(TriggerKind::Cron(Cron {
        expression: expression?,
        timezone: timezone?,
        misfire: misfire.unwrap_or_default(),
        overlap: overlap.unwrap_or(false),
    }))
}

fn cron_expression(node: &Node, reader: &mut Reader) -> Option<String> {
    const HINT: &str =
        "write minute, hour, day, month and weekday, such as 30 6 * * mon-fri; seconds may stand before them";
    let expression = reader.text(node, "`cron`")?.trim();
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let fields = expression.split_whitespace().count();
    let message = if !(5..=6).contains(&fields) && !expression.starts_with('@') {
        format!("a cron expression has 5 fields, or 6 with seconds, and this one has {fields}")
    } else {
        match parser.parse(expression) {
            Ok(cron) if cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, false).is_ok() => {
                return Some(expression.to_owned());
            }
            Ok(_) => "the times of this cron expression never come".into(),
            Err(_) => "this is not a cron expression".into(),
        }
    };
    reader.error_with_hint(&node.span, message, HINT);
    None
}

fn webhook(fields: &Fields, kind: &Entry, reader: &mut Reader, credentials: &mut Credentials) -> Option<TriggerKind> {
    let path = webhook_path(&kind.value, reader);
    let reply = reply(fields, reader);
    let enabled = fields.get("enabled").and_then(|node| reader.boolean(node, "`enabled`")).unwrap_or(true);
    let auth = fields.get("auth").map_or(Vec::new(), |node| {
        reader.items(node).iter().filter_map(|item| authentication(item, reader, &mut *credentials)).collect()
    });
    Some(TriggerKind::Webhook(Webhook { path: path?, enabled, reply, auth }))
}

fn webhook_path(node: &Node, reader: &mut Reader) -> Option<String> {
    const LONGEST: usize = 255;
    let path = reader.name(node, "`webhook`")?;
    let is_fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let (message, hint) = if path.len() > LONGEST || !path.bytes().all(is_fit) {
        ("this cannot be the path of a webhook", "write lower-case letters, digits, `_` and `-`, 255 at most")
    } else if uuid::Uuid::try_parse(path).is_ok() {
        ("the path of a webhook cannot look like a UUID", "such paths are for ids: write a name")
    } else {
        return Some(path.to_owned());
    };
    reader.error_with_hint(&node.span, message, hint);
    None
}

fn reply(fields: &Fields, reader: &mut Reader) -> Reply {
    let words = [("before_start", Reply::BeforeStart), ("after_completion", Reply::AFTER_COMPLETION)];
    let reply = fields.get("reply").and_then(|node| reader.keyword(node, "`reply`", &words)).unwrap_or_default();
    let Reply::AfterCompletion { mut success_code, mut error_code } = reply else {
        for entry in fields.among(&["success_code", "error_code"]) {
            let message = format!("`{}` has no meaning here", entry.key);
            reader.error_with_hint(&entry.key_span, message, "it goes with `reply: after_completion`");
        }
        return reply;
    };
    for (key, code) in [("success_code", &mut success_code), ("error_code", &mut error_code)] {
        if let Some(given) = fields.get(key).and_then(|node| reader.integer(node, &format!("`{key}`"), 200..=599)) {
            *code = given as u16;
        }
    }
    Reply::AfterCompletion { success_code, error_code }
}

/// What a way to authenticate needs of its credential: any one of these.
fn needed(scheme: &AuthScheme) -> &'static [&'static str] {
    match scheme {
        AuthScheme::Basic => &["username", "password"],
        AuthScheme::ApiKey => &["key"],
        AuthScheme::Bearer => &["token"],
        AuthScheme::Signature(_) => &["secret"],
    }
}

fn authentication(node: &Node, reader: &mut Reader, credentials: &mut Credentials) -> Option<WebhookAuth> {
    const SCHEMES: [&str; 4] = ["basic", "api_key", "bearer", "signature"];
    let fields = reader.fields(node, "a way to authenticate", &SCHEMES)?;
    let [entry] = fields.among(&SCHEMES)[..] else {
        let hint = "write each as an item of the list: - basic: NAME-OF-A-CREDENTIAL";
        reader.error_with_hint(&node.span, "this is not one way to authenticate", hint);
        return None;
    };
    let (scheme, named) = match entry.key.as_str() {
        "basic" => (AuthScheme::Basic, &entry.value),
        "api_key" => (AuthScheme::ApiKey, &entry.value),
        "bearer" => (AuthScheme::Bearer, &entry.value),
        _ => {
            let keys = ["scheme", "credential", "header", "prefix", "encoding"];
            let fields = reader.fields(&entry.value, "`signature`", &keys)?;
            let signature = signature(&entry.value, &fields, reader)?;
            let Some(named) = fields.get("credential") else {
                let hint = "add `credential:` with the name of the one that holds the secret";
                reader.error_with_hint(&entry.key_span, "the signature names no credential", hint);
                return None;
            };
            (AuthScheme::Signature(signature), named)
        }
    };
    let credential = reader.name(named, "the credential")?.to_owned();
    credentials.use_from(&credential, &named.span, reader);
    if let Some(value) = credentials.values.get(&credential).filter(|value| value.is_object()) {
        for member in needed(&scheme).iter().filter(|member| value.get(**member).is_none()) {
            let message = format!("the credential {} has no `{member}`", quoted(&credential));
            let hint = format!("`{}` needs {} in it", entry.key, needed(&scheme).join(" and "));
            reader.error_with_hint(&named.span, message, hint);
        }
    }
    Some(WebhookAuth { scheme, credential })
}

fn signature(node: &Node, fields: &Fields, reader: &mut Reader) -> Option<Signature> {
    #[derive(Clone, Copy, PartialEq)]
    enum Scheme {
        StandardWebhooks,
        Github,
        Stripe,
        Shopify,
        Generic,
    }
    let schemes = [
        ("standard_webhooks", Scheme::StandardWebhooks),
        ("github", Scheme::Github),
        ("stripe", Scheme::Stripe),
        ("shopify", Scheme::Shopify),
        ("generic", Scheme::Generic),
    ];
    let scheme = match fields.get("scheme") {
        Some(node) => reader.keyword(node, "`scheme`", &schemes)?,
        None if fields.get("header").is_some() => Scheme::Generic,
        None => {
            let hint = "add `scheme:` with one of standard_webhooks, github, stripe, shopify and generic";
            reader.error_with_hint(&node.span, "the signature does not say of which scheme it is", hint);
            return None;
        }
    };
    if scheme != Scheme::Generic {
        for entry in fields.among(&["header", "prefix", "encoding"]) {
            let message = format!("`{}` is for generic signatures", entry.key);
            reader.error_with_hint(&entry.key_span, message, "take it out, or write `scheme: generic`");
        }
    }
    match scheme {
        Scheme::StandardWebhooks => Some(Signature::StandardWebhooks),
        Scheme::Github => Some(Signature::Github),
        Scheme::Stripe => Some(Signature::Stripe),
        Scheme::Shopify => Some(Signature::Shopify),
        Scheme::Generic => generic_signature(node, fields, reader),
    }
}

fn generic_signature(node: &Node, fields: &Fields, reader: &mut Reader) -> Option<Signature> {
    let Some(header) = fields.get("header") else {
        let hint = "add `header:` with the name of the header that holds it";
        reader.error_with_hint(&node.span, "the signature names no header", hint);
        return None;
    };
    let name = reader.text(header, "`header`")?;
    if http::HeaderName::from_str(name).is_err() {
        reader.error_with_hint(&header.span, "this cannot be the name of a header", "write a name such as X-Signature");
        return None;
    }
    let prefix = fields.get("prefix").and_then(|node| reader.text(node, "`prefix`")).unwrap_or_default();
    let encodings = [("hex", SignatureEncoding::Hex), ("base64", SignatureEncoding::Base64)];
    let encoding = fields.get("encoding").and_then(|node| reader.keyword(node, "`encoding`", &encodings));
    Some(Signature::Generic {
        header: name.to_owned(),
        prefix: prefix.to_owned(),
        encoding: encoding.unwrap_or_default(),
    })
}
