//! Workflows and who may do what: small tables, seldom written.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::rows::Json;
use crate::model::{Timestamp, Workflow};
use crate::store::{Result, Sealed, StoreError, Token, WorkflowSummary};

pub fn publish(connection: &Connection, workflows: &[Workflow], now: Timestamp) -> Result<HashMap<String, i64>> {
    let before = current_versions(connection)?;
    let versions = workflows
        .iter()
        .map(|workflow| {
            let known = find_version(connection, workflow)?;
            let version = known.map_or_else(|| insert_version(connection, workflow), Ok)?;
            Ok((workflow.name.clone(), version))
        })
        .collect::<rusqlite::Result<HashMap<String, i64>>>()?;
    for version in before.values().filter(|version| !versions.values().any(|served| served == *version)) {
        connection.execute("UPDATE workflows SET current = 0 WHERE version = ?1", [version])?;
    }
    for version in versions.values().filter(|version| !before.values().any(|served| served == *version)) {
        connection
            .execute("UPDATE workflows SET current = 1, published_at = ?2 WHERE version = ?1", params![version, now])?;
    }
    Ok(versions)
}

fn current_versions(connection: &Connection) -> rusqlite::Result<HashMap<String, i64>> {
    let mut current = connection.prepare("SELECT name, version FROM workflows WHERE current")?;
    current.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// The version of this very definition. One that an older program wrote, and that cannot be read, is another.
fn find_version(connection: &Connection, workflow: &Workflow) -> rusqlite::Result<Option<i64>> {
    let mut versions =
        connection.prepare("SELECT version, definition FROM workflows WHERE name = ?1 ORDER BY version DESC")?;
    let mut versions = versions.query([&workflow.name])?;
    while let Some(row) = versions.next()? {
        let definition = serde_json::from_str::<Workflow>(row.get_ref(1)?.as_str()?);
        if definition.is_ok_and(|definition| definition == *workflow) {
            return row.get(0).map(Some);
        }
    }
    Ok(None)
}

fn insert_version(connection: &Connection, workflow: &Workflow) -> rusqlite::Result<i64> {
    let mut insert =
        connection.prepare("INSERT INTO workflows (name, current, published_at, definition) VALUES (?1, 0, 0, ?2)")?;
    insert.insert(params![workflow.name, Json(workflow)])
}

pub fn workflow(connection: &Connection, version: i64) -> Result<Option<Workflow>> {
    let mut workflow = connection.prepare_cached("SELECT definition FROM workflows WHERE version = ?1")?;
    let definition: Option<String> = workflow.query_row([version], |row| row.get(0)).optional()?;
    let parse = |text: String| serde_json::from_str(&text);
    definition
        .map(parse)
        .transpose()
        .map_err(|error| StoreError::Broken(format!("version {version} of a workflow cannot be read: {error}")))
}

/// Each workflow once: the version that is served, or was served last.
pub fn workflows(connection: &Connection) -> rusqlite::Result<Vec<WorkflowSummary>> {
    let mut workflows = connection.prepare_cached(
        "SELECT name, version, current, max(current * (1 << 62) + published_at), published_at FROM workflows
         GROUP BY name ORDER BY name",
    )?;
    let read = |row: &Row<'_>| {
        Ok(WorkflowSummary {
            name: row.get("name")?,
            version: row.get("version")?,
            published_at: row.get("published_at")?,
            current: row.get("current")?,
        })
    };
    workflows.query_map([], read)?.collect()
}

pub fn put_credential(connection: &Connection, name: &str, sealed: &Sealed, now: Timestamp) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached(
        "INSERT INTO credentials (name, sealed, updated_at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at",
    )?;
    put.execute(params![name, sealed.0, now]).map(drop)
}

pub fn credential(connection: &Connection, name: &str) -> rusqlite::Result<Option<Sealed>> {
    let mut credential = connection.prepare_cached("SELECT sealed FROM credentials WHERE name = ?1")?;
    credential.query_row([name], |row| row.get(0).map(Sealed)).optional()
}

pub fn credentials(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection.prepare_cached("SELECT name FROM credentials ORDER BY name")?.query_map([], |row| row.get(0))?.collect()
}

pub fn delete_credential(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM credentials WHERE name = ?1")?.execute([name])? > 0)
}

pub fn add_token(connection: &Connection, token: &Token) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO tokens (id, name, hash, scopes, created_at, revoked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    add.execute(params![token.id, token.name, token.hash, Json(&token.scopes), token.created_at, token.revoked_at])
        .map(drop)
}

const TOKEN_COLUMNS: &str = "id, name, hash, scopes, created_at, revoked_at";

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: row.get("id")?,
        name: row.get("name")?,
        hash: row.get("hash")?,
        scopes: row.get::<_, Json<_>>("scopes")?.0,
        created_at: row.get("created_at")?,
        revoked_at: row.get("revoked_at")?,
    })
}

pub fn token_by_hash(connection: &Connection, hash: &[u8; 32]) -> rusqlite::Result<Option<Token>> {
    let sql = format!("SELECT {TOKEN_COLUMNS} FROM tokens WHERE hash = ?1 AND revoked_at IS NULL");
    connection.prepare_cached(&sql)?.query_row([hash], token).optional()
}

pub fn tokens(connection: &Connection) -> rusqlite::Result<Vec<Token>> {
    let sql = format!("SELECT {TOKEN_COLUMNS} FROM tokens ORDER BY created_at, id");
    connection.prepare_cached(&sql)?.query_map([], token)?.collect()
}

pub fn revoke_token(connection: &Connection, id: &str, now: Timestamp) -> rusqlite::Result<bool> {
    let mut revoke =
        connection.prepare_cached("UPDATE tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL")?;
    Ok(revoke.execute(params![id, now])? > 0)
}
