//! What is kept and found again: lists, definitions, cursors, credentials, tokens; and what is forgotten.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Dialect, JsStep, RetryPolicy, Step, StepKind};

pub async fn lists_are_read_page_by_page(store: Shared) {
    let mut ids = Vec::new();
    for index in 0..25 {
        ids.push(admit_one(&store, if index % 5 == 0 { "five" } else { "w" }).await);
    }
    ids.reverse();
    for filter in [
        RunFilter::default(),
        RunFilter { states: vec![RunState::Pending, RunState::Failed, RunState::Running], ..RunFilter::default() },
    ] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = store.runs(filter.clone(), PageRequest { after, limit: 7 }).await.unwrap();
            assert!(page.items.len() <= 7);
            seen.extend(page.items.iter().map(|run| run.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ids);
    }
    let five = RunFilter { workflow: Some("five".into()), ..RunFilter::default() };
    let page = store.runs(five, PageRequest { after: Some(ids[10]), limit: 5 }).await.unwrap();
    assert_eq!(page.items.iter().map(|run| run.id).collect::<Vec<_>>(), [ids[14], ids[19], ids[24]]);
    let exactly = store.runs(RunFilter::default(), first(25)).await.unwrap();
    assert_eq!((exactly.items.len(), exactly.next), (25, None));
}

pub async fn runs_are_found_by_what_is_known_of_them(store: Shared) {
    let now = Timestamp::from(std::time::SystemTime::now());
    let second = Duration::from_secs(1);
    let message = Message { received_at: now, ..message("inbox", r#"{"name":"Ada Lovelace"}"#) };
    let plain = Run { created_at: now, ..run("w") };
    let sent = Run { created_at: now, message: Some(message.id), trigger: Some("hook".into()), ..run("w") };
    let other = Run { created_at: now.saturating_add(second), ..run("other") };
    let (plain_id, sent_id, other_id) = (plain.id, sent.id, other.id);
    let runs = [plain, sent, other].map(start).into();
    let intake = Intake { message: Some(message.clone()), runs, ..Intake::default() };
    assert_eq!(store.admit(intake).await.unwrap(), Admitted::New);
    let due = now.saturating_add(second);
    for claimed in claim(&store, due, 10).await {
        if claimed.run.id == other_id {
            settle(&store, &claimed, Then::Dead).await;
        }
    }
    let any = RunFilter::default;
    for (filter, expected) in [
        (any(), vec![other_id, sent_id, plain_id]),
        (RunFilter { states: vec![RunState::Failed], ..any() }, vec![other_id]),
        (RunFilter { states: vec![RunState::Failed], workflow: Some("w".into()), ..any() }, vec![]),
        (RunFilter { workflow: Some("w".into()), ..any() }, vec![sent_id, plain_id]),
        (RunFilter { states: vec![RunState::Running], workflow: Some("w".into()), ..any() }, vec![sent_id, plain_id]),
        (RunFilter { trigger: Some("hook".into()), ..any() }, vec![sent_id]),
        (RunFilter { message: Some(message.id), ..any() }, vec![sent_id]),
        (RunFilter { message: Some(message.id), workflow: Some("other".into()), ..any() }, vec![]),
        (RunFilter { since: Some(due), ..any() }, vec![other_id]),
        (RunFilter { until: Some(due), ..any() }, vec![sent_id, plain_id]),
        (RunFilter { text: Some("lovelace".into()), ..any() }, vec![sent_id]),
        (RunFilter { text: Some("SAID NO".into()), ..any() }, vec![other_id]),
        (RunFilter { text: Some(plain_id.to_string()), ..any() }, vec![plain_id]),
        (RunFilter { text: Some("%".into()), ..any() }, vec![]),
    ] {
        assert_eq!(found_runs(&store, filter.clone()).await, expected, "{filter:?}");
    }
}

pub async fn messages_are_found_by_what_is_known_of_them(store: Shared) {
    let now = Timestamp::from(std::time::SystemTime::now());
    let later = now.saturating_add(Duration::from_secs(1));
    let first_one = Message { received_at: now, ..message("a", r#"{"name":"Grace"}"#) };
    let second = Message { received_at: later, dedupe_key: Some("order-7".into()), ..message("b", "[]") };
    for message in [&first_one, &second] {
        let intake = Intake { message: Some(message.clone()), ..Intake::default() };
        assert_eq!(store.admit(intake).await.unwrap(), Admitted::New);
    }
    let any = MessageFilter::default;
    for (filter, expected) in [
        (any(), vec![second.id, first_one.id]),
        (MessageFilter { topic: Some("a".into()), ..any() }, vec![first_one.id]),
        (MessageFilter { since: Some(later), ..any() }, vec![second.id]),
        (MessageFilter { until: Some(later), ..any() }, vec![first_one.id]),
        (MessageFilter { text: Some("gRACE".into()), ..any() }, vec![first_one.id]),
        (MessageFilter { text: Some("order-7".into()), ..any() }, vec![second.id]),
        (MessageFilter { text: Some("nobody".into()), ..any() }, vec![]),
    ] {
        let page = store.messages(filter.clone(), first(10)).await.unwrap();
        assert_eq!(page.items.iter().map(|message| message.id).collect::<Vec<_>>(), expected, "{filter:?}");
    }
    let page = store.messages(any(), first(1)).await.unwrap();
    assert_eq!(page.next, Some(second.id));
}

pub async fn tasks_are_found_by_what_is_known_of_them(store: Shared) {
    for workflow in ["a", "a", "b"] {
        admit_one(&store, workflow).await;
    }
    let claimed = claim(&store, at(1), 3).await;
    settle(&store, &claimed[0], Then::Dead).await;
    settle(&store, &claimed[1], Then::Dead).await;
    let next = Then::Next { state: TaskState::Completed, tasks: vec![task(&claimed[2].run, "b")] };
    settle(&store, &claimed[2], next).await;
    let any = TaskFilter::default;
    let dead = vec![TaskState::Dead];
    for (filter, expected) in [
        (any(), 4),
        (TaskFilter { states: dead.clone(), ..any() }, 2),
        (TaskFilter { states: dead.clone(), workflow: Some("b".into()), ..any() }, 1),
        (TaskFilter { states: vec![TaskState::Dead, TaskState::Queued], workflow: Some("a".into()), ..any() }, 2),
        (TaskFilter { states: vec![TaskState::Completed, TaskState::Dead], ..any() }, 3),
        (TaskFilter { run: Some(claimed[2].run.id), ..any() }, 2),
        (TaskFilter { run: Some(claimed[2].run.id), states: dead, ..any() }, 0),
        (TaskFilter { step: Some("b".into()), ..any() }, 1),
    ] {
        let page = store.tasks(filter.clone(), first(10)).await.unwrap();
        assert_eq!((page.items.len(), page.next), (expected, None), "{filter:?}");
        assert!(page.items.is_sorted_by(|newer, older| newer.id > older.id));
    }
}

async fn forget(store: &Shared, retention: Retention, batch: usize) -> usize {
    store.prune(retention, batch).await.unwrap()
}

pub async fn old_things_are_forgotten(store: Shared) {
    let mut attempts = Vec::new();
    for index in 0..6 {
        let message = message("inbox", "{}");
        let run = Run { message: Some(message.id), ..run("w") };
        let intake = Intake { message: Some(message), runs: vec![start(run)], ..Intake::default() };
        assert_eq!(store.admit(intake).await.unwrap(), Admitted::New);
        let claimed = claim_one(&store, at(10 * index)).await;
        let wanted = settlement(&claimed, if index < 4 { done() } else { Then::Dead });
        attempts.push(wanted.attempt.id);
        store.settle(wanted).await.unwrap();
    }
    let logs = Retention { logs: Some(at(11)), ..Retention::default() };
    assert_eq!(forget(&store, logs, 1).await, 1);
    assert_eq!(forget(&store, logs, 1).await, 0, "the second attempt ended at 11");
    assert!(store.log(attempts[0]).await.unwrap().is_none());
    assert!(store.output(attempts[0]).await.unwrap().is_some());

    let messages = Retention { messages: Some(at(1)), ..Retention::default() };
    assert_eq!(forget(&store, messages, 10).await, 0, "runs refer to them");
    let runs = Retention { runs: Some(at(1000)), ..Retention::default() };
    assert_eq!(forget(&store, runs, 3).await, 3);
    assert_eq!(forget(&store, runs, 3).await, 1);
    assert_eq!(forget(&store, runs, 3).await, 0);
    assert!(store.attempt(attempts[3]).await.unwrap().is_none());
    assert!(store.output(attempts[3]).await.unwrap().is_none());
    assert_eq!(store.tasks(TaskFilter::default(), first(10)).await.unwrap().items.len(), 2);
    assert_eq!(forget(&store, messages, 10).await, 4);
    assert_eq!(store.topics().await.unwrap()[0].messages, 2);

    let all = Retention { failed_runs: Some(at(1000)), messages: Some(at(1)), ..Retention::default() };
    assert_eq!(forget(&store, all, 10).await, 4);
    assert_eq!(forget(&store, all, 10).await, 0);
    assert!(store.topics().await.unwrap().is_empty());
    assert!(store.queue(at(0)).await.unwrap().is_empty());
}

pub async fn what_is_needed_is_not_forgotten(store: Shared) {
    let everything =
        Retention { runs: Some(at(1000)), failed_runs: Some(at(1000)), logs: Some(at(1000)), messages: Some(at(1000)) };
    let kept = message("inbox", "{}");
    let origin = Run { message: Some(kept.id), ..run("w") };
    let origin_id = origin.id;
    let intake = Intake { message: Some(kept.clone()), runs: vec![start(origin)], ..Intake::default() };
    assert_eq!(store.admit(intake).await.unwrap(), Admitted::New);
    assert_eq!(forget(&store, everything, 10).await, 0, "it has not ended");
    let claimed = claim_one(&store, at(1)).await;
    settle(&store, &claimed, Then::Dead).await;
    let again = Run { retry_of: Some(origin_id), message: Some(kept.id), ..run("w") };
    admit(&store, vec![start(again)]).await;
    assert_eq!(forget(&store, everything, 10).await, 1, "the log");
    assert!(store.run(origin_id).await.unwrap().is_some());
    let claimed = claim_one(&store, at(2)).await;
    settle(&store, &claimed, done()).await;
    assert_eq!(forget(&store, everything, 10).await, 4, "a log, two runs, and the message");
    assert!(store.message(kept.id).await.unwrap().is_none());
}

fn workflow(name: &str, expression: &str) -> Workflow {
    let job = JsStep {
        expression: expression.into(),
        file: None,
        dialect: Dialect::Module,
        adaptors: vec![],
        credential: None,
        timeout: None,
        memory: None,
        network: None,
    };
    Workflow {
        name: name.into(),
        triggers: vec![],
        start: "a".into(),
        steps: vec![Step { id: "a".into(), kind: StepKind::Js(job), retry: None, next: vec![] }],
        retry: RetryPolicy::default(),
        concurrency: None,
        initial_state: None,
        isolation: Default::default(),
        final_state_path: None,
    }
}

pub async fn a_definition_keeps_its_version_until_it_changes(store: Shared) {
    let served = |summaries: Vec<WorkflowSummary>| {
        let summaries = summaries.into_iter().map(|one| (one.name, (one.version, one.current, one.published_at)));
        summaries.collect::<BTreeMap<_, _>>()
    };
    let one = store.publish(&[workflow("a", "1"), workflow("b", "1")], at(1)).await.unwrap();
    assert_eq!(store.publish(&[workflow("a", "1"), workflow("b", "1")], at(2)).await.unwrap(), one);
    assert_eq!(served(store.workflows().await.unwrap())["a"], (one["a"], true, at(1)));
    let two = store.publish(&[workflow("a", "2")], at(3)).await.unwrap();
    assert_ne!(two["a"], one["a"]);
    let summaries = served(store.workflows().await.unwrap());
    assert_eq!(summaries["a"], (two["a"], true, at(3)));
    assert_eq!(summaries["b"], (one["b"], false, at(1)));
    let back = store.publish(&[workflow("a", "1")], at(4)).await.unwrap();
    assert_eq!(back["a"], one["a"]);
    assert_eq!(served(store.workflows().await.unwrap())["a"], (one["a"], true, at(4)));
    for _ in 0..2 {
        assert_eq!(*store.workflow(two["a"]).await.unwrap().unwrap(), workflow("a", "2"));
    }
    assert!(store.workflow(1_000_000).await.unwrap().is_none());
}

pub async fn a_cursor_is_what_the_last_success_left(store: Shared) {
    for _ in 0..3 {
        admit_one(&store, "w").await;
    }
    let claimed = claim(&store, at(1), 3).await;
    settle(&store, &claimed[0], done()).await;
    assert_eq!(store.cursor("w", "a").await.unwrap(), None);
    for (claimed, output) in claimed[1..].iter().zip(["1", "2"]) {
        let wanted = Settlement { keep_cursor: true, output: Some(output.into()), ..settlement(claimed, done()) };
        store.settle(wanted).await.unwrap();
        assert_eq!(store.cursor("w", "a").await.unwrap().as_deref(), Some(output));
    }
    assert_eq!(store.cursor("w", "b").await.unwrap(), None);
}

pub async fn the_queue_is_counted_by_workflow(store: Shared) {
    let later = |workflow: &str| {
        let run = Run { created_at: at(100), ..run(workflow) };
        NewRun { tasks: vec![Task { state: TaskState::Scheduled, ..task(&run, "a") }], run }
    };
    for _ in 0..4 {
        admit_one(&store, "a").await;
    }
    admit(&store, vec![later("a"), later("b")]).await;
    let claimed = claim(&store, at(1), 3).await;
    settle(&store, &claimed[0], done()).await;
    settle(&store, &claimed[1], Then::Dead).await;
    let a = QueueDepth { workflow: "a".into(), due: 1, later: 1, running: 1, dead: 1, oldest_due: Some(at(0)) };
    let b = QueueDepth { workflow: "b".into(), later: 1, ..QueueDepth::default() };
    assert_eq!(store.queue(at(2)).await.unwrap(), [a, b]);
}

pub async fn the_latest_time_is_known(store: Shared) {
    assert_eq!(store.latest().await.unwrap(), None);
    admit(&store, vec![start(Run { created_at: at(3), ..run("w") })]).await;
    assert_eq!(store.latest().await.unwrap(), Some(at(3)));
    let claimed = claim_one(&store, at(8)).await;
    settle(&store, &claimed, done()).await;
    assert_eq!(store.latest().await.unwrap(), Some(at(9)));
    assert_eq!(store.admit(tick(20, false)).await.unwrap(), Admitted::New);
    assert_eq!(store.latest().await.unwrap(), Some(at(20)));
}

pub async fn credentials_are_kept_sealed(store: Shared) {
    assert!(store.credential("api").await.unwrap().is_none());
    store.put_credential("api", Sealed(vec![1, 2]), at(0)).await.unwrap();
    store.put_credential("api", Sealed(vec![3, 4]), at(1)).await.unwrap();
    store.put_credential("aaa", Sealed(vec![5]), at(1)).await.unwrap();
    assert_eq!(store.credential("api").await.unwrap(), Some(Sealed(vec![3, 4])));
    assert_eq!(store.credentials().await.unwrap(), ["aaa", "api"]);
    assert!(store.delete_credential("api").await.unwrap());
    assert!(!store.delete_credential("api").await.unwrap());
    assert!(store.credential("api").await.unwrap().is_none());
}

pub async fn a_revoked_token_is_no_token(store: Shared) {
    let token = Token {
        id: "t1".into(),
        name: "ci".into(),
        hash: [7; 32],
        scopes: vec!["runs:read".into(), "runs:write".into()],
        created_at: at(0),
        revoked_at: None,
    };
    store.add_token(token.clone()).await.unwrap();
    let found = store.token_by_hash([7; 32]).await.unwrap().unwrap();
    assert_eq!((found.id, found.name, found.scopes), (token.id, token.name, token.scopes));
    assert!(store.token_by_hash([8; 32]).await.unwrap().is_none());
    assert!(store.revoke_token("t1", at(1)).await.unwrap());
    assert!(!store.revoke_token("t1", at(2)).await.unwrap());
    assert!(!store.revoke_token("t2", at(2)).await.unwrap());
    assert!(store.token_by_hash([7; 32]).await.unwrap().is_none());
    assert_eq!(store.tokens().await.unwrap()[0].revoked_at, Some(at(1)));
}
