//! A stand-in for a service on the internet, for clients that can be sent to another address.
//!
//! It knows nothing of any service: what it answers stands at the head of the case, and what it was asked it tells at
//! `/seen`. So a case shows what its client sends, and what the client makes of answers as the service documents them.

use std::sync::Mutex;

use serde_json::Value;

use crate::http_server::{Reply, Request, Server, echo};

/// `GET /patients/1 200 {"name":"Amina"}`, where `\n` ends a line and `SERVICE` is the stand-in's own address.
#[derive(Clone)]
pub struct Answer {
    method: String,
    path: String,
    status: u16,
    body: String,
}

impl Answer {
    pub fn read(line: &str) -> Self {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, path, status, body) = (word(), word(), word(), word());
        let status = status.parse().unwrap_or_else(|_| panic!("an answer without a status: {line}"));
        Self { method, path, status, body: body.replace("\\n", "\n") }
    }

    fn reply(&self, host: &str) -> Reply {
        let body = self.body.replace("SERVICE", &format!("http://{host}"));
        // Storage services give every object these two headers, and their clients insist on them.
        Reply::new(self.status, content_type(&body), body)
            .header("etag", "\"1\"")
            .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
    }
}

fn content_type(body: &str) -> &'static str {
    match body.as_bytes().first() {
        Some(b'{' | b'[') => "application/json",
        Some(b'<') => "application/xml",
        _ if body.contains("data: ") => "text/event-stream",
        _ => "text/plain",
    }
}

/// Gives `answers` to those who ask for them, and to all others what it was asked.
pub fn serve(answers: Vec<Answer>) -> Server {
    let seen = Mutex::new(Vec::new());
    Server::with(move |request| answer(request, &answers, &mut seen.lock().expect("no handler panics")))
}

fn answer(request: &Request, answers: &[Answer], seen: &mut Vec<Value>) -> Reply {
    if request.path == "/seen" {
        return Reply::json(200, &seen.clone().into());
    }
    seen.push(echo(request));
    let wanted = answers.iter().find(|answer| answer.method == request.method && answer.path == request.path);
    wanted.map_or_else(
        || Reply::json(200, &echo(request)),
        |answer| answer.reply(request.header("host").unwrap_or("localhost")),
    )
}
