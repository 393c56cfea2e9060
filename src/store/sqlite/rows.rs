//! How the model is written into columns and read back.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Type, ValueRef};
use rusqlite::{OptionalExtension as _, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{
    Attempt, AttemptId, AttemptOutcome, Failure, Message, MessageId, Priority, Run, RunId, RunState, Task, TaskId,
    TaskInput, TaskState, Timestamp, Usage,
};

macro_rules! id_columns {
    ($($id:ty),*) => {$(
        impl ToSql for $id {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
            }
        }

        impl FromSql for $id {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <[u8; 16]>::column_result(value).map(Self::from_bytes)
            }
        }
    )*};
}

id_columns!(MessageId, RunId, TaskId, AttemptId);

macro_rules! name_columns {
    ($($name:ty),*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.name().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let name = value.as_str()?;
                Self::from_name(name).ok_or_else(|| FromSqlError::Other(format!("unknown state `{name}`").into()))
            }
        }
    )*};
}

name_columns!(RunState, TaskState, AttemptOutcome);

impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_micros().into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        i64::column_result(value).map(Self::from_micros)
    }
}

impl ToSql for Priority {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for Priority {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match i64::column_result(value)? {
            0 => Ok(Self::Normal),
            1 => Ok(Self::Immediate),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

/// A value kept as JSON text.
pub struct Json<T>(pub T);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = serde_json::to_string(&self.0);
        text.map(ToSqlOutput::from).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

/// A count as SQLite keeps it.
pub fn count(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

pub const RUN_COLUMNS: &str = "runs.id, runs.workflow, runs.version, runs.trigger_name, runs.message, runs.retry_of, \
     runs.state, runs.priority, runs.created_at, runs.started_at, runs.finished_at, runs.failure, runs.traceparent";

pub fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: row.get("id")?,
        workflow: row.get("workflow")?,
        version: row.get("version")?,
        trigger: row.get("trigger_name")?,
        message: row.get("message")?,
        retry_of: row.get("retry_of")?,
        state: row.get("state")?,
        priority: row.get("priority")?,
        created_at: row.get("created_at")?,
        started_at: row.get("started_at")?,
        finished_at: row.get("finished_at")?,
        failure: row.get::<_, Option<Json<Failure>>>("failure")?.map(|failure| failure.0),
        traceparent: row.get("traceparent")?,
    })
}

/// With `LEFT JOIN task_states ON task_states.task = tasks.id`.
pub const TASK_COLUMNS: &str = "tasks.id, tasks.run, tasks.workflow, tasks.step, tasks.state, tasks.run_at, \
     tasks.priority, tasks.attempts, tasks.forgiven, tasks.lease_started, tasks.input, tasks.input_attempt, \
     task_states.state AS given_state, tasks.created_at";

pub fn task(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        id: row.get("id")?,
        run: row.get("run")?,
        workflow: row.get("workflow")?,
        step: row.get("step")?,
        state: row.get("state")?,
        run_at: row.get("run_at")?,
        priority: row.get("priority")?,
        attempts: row.get("attempts")?,
        input: task_input(row)?,
        created_at: row.get("created_at")?,
    })
}

pub const fn input_kind(input: &TaskInput) -> &'static str {
    match input {
        TaskInput::Message => "message",
        TaskInput::Output(_) => "output",
        TaskInput::Cursor => "cursor",
        TaskInput::State(_) => "state",
    }
}

fn task_input(row: &Row<'_>) -> rusqlite::Result<TaskInput> {
    let kind = row.get_ref("input")?.as_str()?;
    match kind {
        "message" => Ok(TaskInput::Message),
        "output" => Ok(TaskInput::Output(row.get("input_attempt")?)),
        "cursor" => Ok(TaskInput::Cursor),
        "state" => Ok(TaskInput::State(row.get("given_state")?)),
        _ => Err(rusqlite::Error::FromSqlConversionFailure(
            row.as_ref().column_index("input")?,
            Type::Text,
            format!("unknown input `{kind}`").into(),
        )),
    }
}

pub const ATTEMPT_COLUMNS: &str = "attempts.id, attempts.task, attempts.number, attempts.started_at, \
     attempts.finished_at, attempts.outcome, attempts.failure, attempts.cpu_us, attempts.heap, attempts.buffers";

pub fn attempt(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    let unsigned = |column| row.get::<_, i64>(column).map(|value| value.max(0) as u64);
    Ok(Attempt {
        id: row.get("id")?,
        task: row.get("task")?,
        number: row.get("number")?,
        started_at: row.get("started_at")?,
        finished_at: row.get("finished_at")?,
        outcome: row.get("outcome")?,
        failure: row.get::<_, Option<Json<Failure>>>("failure")?.map(|failure| failure.0),
        usage: Usage { cpu_us: unsigned("cpu_us")?, heap: unsigned("heap")?, buffers: unsigned("buffers")? },
    })
}

pub const MESSAGE_COLUMNS: &str = "messages.id, messages.topic, messages.received_at, messages.deliver_at, \
     messages.dedupe_key, messages.request, messages.data, messages.body";

pub fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: row.get("id")?,
        topic: row.get("topic")?,
        data: row.get("data")?,
        body: row.get("body")?,
        request: row.get::<_, Json<_>>("request")?.0,
        received_at: row.get("received_at")?,
        deliver_at: row.get("deliver_at")?,
        dedupe_key: row.get("dedupe_key")?,
    })
}

/// The run with this id.
pub fn load_run(connection: &rusqlite::Connection, id: RunId) -> rusqlite::Result<Option<Run>> {
    let sql = format!("SELECT {RUN_COLUMNS} FROM runs WHERE id = ?1");
    connection.prepare_cached(&sql)?.query_row([id], run).optional()
}
