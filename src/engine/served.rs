//! What is being served: the project, ready to run, and the ways into it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::places::Limits;
use crate::model::{StepKind, Timestamp, Trigger, TriggerKind, Webhook, Workflow};
use crate::step::js::{JsRunner, PrepareError, Prepared};

/// A version of a workflow, with each step ready to run.
pub struct Definition {
    pub workflow: Arc<Workflow>,
    pub version: i64,
    /// When this process began to serve it.
    pub since: Timestamp,
    steps: HashMap<String, Result<Prepared, Arc<PrepareError>>>,
}

/// A step that cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("workflow `{workflow}`, step `{step}`: {error}")]
pub struct Unready {
    pub workflow: String,
    pub step: String,
    pub error: Arc<PrepareError>,
}

impl Definition {
    /// Gets every step ready. One that cannot be run fails when it is its turn, and the others go on.
    pub fn prepare(
        runner: &JsRunner,
        workflow: Arc<Workflow>,
        version: i64,
        since: Timestamp,
        credentials: &BTreeMap<String, Value>,
    ) -> Self {
        let owner = format!("{}\n{version}", workflow.name);
        let steps = workflow.steps.iter().map(|step| {
            let StepKind::Js(js) = &step.kind;
            (step.id.clone(), runner.prepare(&owner, workflow.isolation, &step.id, js, credentials).map_err(Arc::new))
        });
        Self { steps: steps.collect(), workflow: workflow.clone(), version, since }
    }

    pub fn step(&self, id: &str) -> Option<&Result<Prepared, Arc<PrepareError>>> {
        self.steps.get(id)
    }

    /// What keeps steps from running.
    pub fn unready(&self) -> impl Iterator<Item = Unready> {
        self.steps.iter().filter_map(|(step, prepared)| {
            let error = prepared.as_ref().err()?.clone();
            Some(Unready { workflow: self.workflow.name.clone(), step: step.clone(), error })
        })
    }

    /// The sets of adaptors that its steps use.
    pub fn adaptor_sets(&self) -> impl Iterator<Item = &[String]> {
        self.steps.values().filter_map(|prepared| prepared.as_ref().ok()).map(Prepared::adaptors)
    }

    /// Whether a clock starts it: such a run begins with what the last one left.
    pub fn keeps_cursor(&self) -> bool {
        let by_clock = |trigger: &Trigger| matches!(trigger.kind, TriggerKind::Cron(_) | TriggerKind::Every { .. });
        self.workflow.triggers.iter().any(by_clock)
    }
}

/// One trigger of a workflow.
#[derive(Clone)]
pub struct Entrance {
    pub definition: Arc<Definition>,
    trigger: usize,
}

impl Entrance {
    pub fn trigger(&self) -> &Trigger {
        &self.definition.workflow.triggers[self.trigger]
    }
}

/// The project as it is served now. A reload replaces it as a whole.
#[derive(Default)]
pub struct Served {
    pub dir: PathBuf,
    pub workflows: BTreeMap<String, Arc<Definition>>,
    pub credentials: BTreeMap<String, Value>,
    topics: HashMap<String, Vec<Entrance>>,
    webhooks: HashMap<String, Vec<Entrance>>,
    clocked: Vec<Entrance>,
    versions: HashMap<i64, Arc<Definition>>,
    limits: Limits,
}

impl Served {
    pub fn new(dir: PathBuf, definitions: Vec<Arc<Definition>>, credentials: BTreeMap<String, Value>) -> Self {
        let mut served = Self { dir, credentials, ..Self::default() };
        for definition in definitions {
            for (index, trigger) in definition.workflow.triggers.iter().enumerate() {
                let entrance = Entrance { definition: definition.clone(), trigger: index };
                match &trigger.kind {
                    TriggerKind::Message { topic, .. } => {
                        served.topics.entry(topic.clone()).or_default().push(entrance);
                    }
                    TriggerKind::Webhook(webhook) => {
                        served.webhooks.entry(webhook.path.clone()).or_default().push(entrance);
                    }
                    TriggerKind::Cron(_) | TriggerKind::Every { .. } => served.clocked.push(entrance),
                }
            }
            let name = &definition.workflow.name;
            served.limits.extend(definition.workflow.concurrency.map(|limit| (name.clone(), limit as usize)));
            served.versions.insert(definition.version, definition.clone());
            served.workflows.insert(definition.workflow.name.clone(), definition);
        }
        served
    }

    /// A version of a workflow that is served now.
    pub(super) fn version(&self, version: i64) -> Option<Arc<Definition>> {
        self.versions.get(&version).cloned()
    }

    /// The workflows of which only so many tasks may run at once.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What keeps steps from running.
    pub fn unready(&self) -> impl Iterator<Item = Unready> {
        self.workflows.values().flat_map(|definition| definition.unready())
    }

    /// The triggers that listen to a topic.
    pub fn topic(&self, topic: &str) -> &[Entrance] {
        self.topics.get(topic).map_or(&[], Vec::as_slice)
    }

    /// The triggers behind `/i/<path>`, and what they agree on.
    pub fn webhook(&self, path: &str) -> Option<(&[Entrance], &Webhook)> {
        let entrances = self.webhooks.get(path)?;
        match &entrances.first()?.trigger().kind {
            TriggerKind::Webhook(webhook) => Some((entrances, webhook)),
            _ => None,
        }
    }

    /// The triggers that a clock fires.
    pub fn clocked(&self) -> &[Entrance] {
        &self.clocked
    }
}
