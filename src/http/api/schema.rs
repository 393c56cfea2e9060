//! How the OpenAPI document describes the model's own types. The model itself knows nothing of OpenAPI.

use serde::Serialize;
use utoipa::openapi::schema::{Object, Schema, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::model::{AttemptId, AttemptOutcome, MessageId, RunId, RunState, Severity, TaskId, TaskState, Timestamp};

fn text(format: Option<&str>, description: &str) -> ObjectBuilder {
    Object::builder()
        .schema_type(SchemaType::new(Type::String))
        .format(format.map(|format| SchemaFormat::Custom(format.to_owned())))
        .description(Some(description))
}

macro_rules! described {
    ($($type:ty: $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $type {}
    )*};
}

/// One of a set of names, as serde writes them.
fn one_of<T: Serialize>(values: &[T], description: &str) -> ObjectBuilder {
    let names = values.iter().filter_map(|value| serde_json::to_value(value).ok());
    text(None, description).enum_values(Some(names))
}

described! {
    Timestamp: text(Some("date-time"), "A point in time, RFC 3339.");
    MessageId: text(Some("uuid"), "The id of a message.");
    RunId: text(Some("uuid"), "The id of a run.");
    TaskId: text(Some("uuid"), "The id of a task. It stays the same over all attempts.");
    AttemptId: text(Some("uuid"), "The id of an attempt.");
    RunState: one_of(RunState::ALL, "How far a run is.");
    TaskState: one_of(
        TaskState::ALL,
        "How far a task is. `failed`: it failed, and a step that follows handles it. `dead`: it failed for good and \
         nothing handles it; someone has to look, and may re-drive it.",
    );
    Severity: one_of(&Severity::ALL, "How bad a failure is, in OpenFn's words.");
    AttemptOutcome: one_of(
        &[AttemptOutcome::Success, AttemptOutcome::Failure, AttemptOutcome::Cancelled, AttemptOutcome::Lost],
        "How an attempt ended. `lost`: it was cut, and nothing is known of how far it came.",
    );
}
