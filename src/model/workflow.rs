//! What is to be done, and in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Failure, RetryPolicy, Severity, Trigger};

/// How far runs of a workflow are kept apart; see `docs/isolation.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Each has isolates of its own.
    #[default]
    Run,
    /// They have isolates one after the other, in which each evaluates its modules anew.
    Module,
    /// They have isolates one after the other, with all that is in them.
    Workflow,
}

impl Isolation {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Module => "module",
            Self::Workflow => "workflow",
        }
    }
}

/// Steps, and what starts them. One that is stored never changes; a changed project makes a new version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Unique within the project.
    pub name: String,
    pub triggers: Vec<Trigger>,
    /// The step that a trigger starts.
    pub start: String,
    pub steps: Vec<Step>,
    /// For steps without a policy of their own.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// Tasks of this workflow that may run at once; None: as many as the service runs at all.
    #[serde(default)]
    pub concurrency: Option<u32>,
    #[serde(default)]
    pub isolation: Isolation,
    /// The initial state of a run that no message started, and that no run came before; a JSON object.
    #[serde(default)]
    pub initial_state: Option<String>,
    /// The file that holds the last final state, written anew after each run; relative to the project.
    #[serde(default)]
    pub final_state_path: Option<PathBuf>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique within the workflow.
    pub id: String,
    pub kind: StepKind,
    #[serde(default)]
    pub retry: Option<RetryPolicy>,
    /// What follows.
    #[serde(default)]
    pub next: Vec<Edge>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Js(JsStep),
}

/// A job expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JsStep {
    /// The source itself.
    pub expression: String,
    /// The file it came from, relative to the project: for messages.
    #[serde(default)]
    pub file: Option<String>,
    #[serde(default)]
    pub dialect: Dialect,
    /// The adaptors as the project names them, e.g. `@openfn/language-http@7`.
    pub adaptors: Vec<String>,
    /// The credential that becomes `state.configuration`.
    #[serde(default)]
    pub credential: Option<String>,
    /// How long one attempt may take; None: as the service is set.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// Heap of the isolate in bytes; None: as the service is set.
    #[serde(default)]
    pub memory: Option<usize>,
    /// Hosts that may be connected to; None: all.
    #[serde(default)]
    pub network: Option<Vec<String>>,
}

/// How an expression is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    #[default]
    Module,
    /// As `@openfn/core` compiled it: one script.
    Script,
}

/// A way from one step to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    pub to: String,
    #[serde(default)]
    pub condition: Condition,
}

/// When a way is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    #[default]
    Always,
    OnSuccess,
    OnFailure,
}

/// Why a definition cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorkflowError {
    #[error("there is no step `{0}`")]
    NoSuchStep(String),
    #[error("two steps have the name `{0}`")]
    DuplicateStep(String),
    #[error("the steps go round in a circle: {}", .0.join(" -> "))]
    Circle(Vec<String>),
}

impl Workflow {
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// The policy that holds for a step.
    pub fn retry_of<'a>(&'a self, step: &'a Step) -> &'a RetryPolicy {
        step.retry.as_ref().unwrap_or(&self.retry)
    }

    /// That every name leads somewhere, and no way leads back.
    pub fn check(&self) -> Result<(), WorkflowError> {
        let mut steps = BTreeMap::new();
        for step in &self.steps {
            if steps.insert(step.id.as_str(), step).is_some() {
                return Err(WorkflowError::DuplicateStep(step.id.clone()));
            }
        }
        let targets = self.steps.iter().flat_map(|step| &step.next).map(|edge| &edge.to);
        if let Some(missing) = targets.chain([&self.start]).find(|id| !steps.contains_key(id.as_str())) {
            return Err(WorkflowError::NoSuchStep(missing.clone()));
        }
        let mut done = BTreeSet::new();
        self.steps.iter().try_for_each(|step| visit(&steps, step, &mut Vec::new(), &mut done))
    }
}

/// Walks what follows `step`; `path` is how it was reached.
fn visit<'a>(
    steps: &BTreeMap<&str, &'a Step>,
    step: &'a Step,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Result<(), WorkflowError> {
    if let Some(start) = path.iter().position(|id| *id == step.id) {
        let circle = path[start..].iter().chain([&step.id.as_str()]).map(ToString::to_string).collect();
        return Err(WorkflowError::Circle(circle));
    }
    if done.contains(step.id.as_str()) {
        return Ok(());
    }
    path.push(&step.id);
    for edge in &step.next {
        visit(steps, steps[edge.to.as_str()], path, done)?;
    }
    path.pop();
    done.insert(&step.id);
    Ok(())
}

impl Step {
    /// The steps that follow an attempt that ended so. A kill or crash stops the workflow but for what is there to
    /// handle a failure.
    pub fn following(&self, failure: Option<&Failure>) -> impl Iterator<Item = &str> {
        let taken = move |condition: &Condition| match (condition, failure) {
            (Condition::OnSuccess, failure) => failure.is_none(),
            (Condition::OnFailure, failure) => failure.is_some(),
            (Condition::Always, None) => true,
            (Condition::Always, Some(failure)) => failure.severity == Severity::Fail,
        };
        self.next.iter().filter(move |edge| taken(&edge.condition)).map(|edge| edge.to.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, next: &[(&str, Condition)]) -> Step {
        let kind = StepKind::Js(JsStep {
            expression: String::new(),
            file: None,
            dialect: Dialect::Module,
            adaptors: vec![],
            credential: None,
            timeout: None,
            memory: None,
            network: None,
        });
        let next = next.iter().map(|(to, condition)| Edge { to: to.to_string(), condition: condition.clone() });
        Step { id: id.into(), kind, retry: None, next: next.collect() }
    }

    fn check(start: &str, steps: Vec<Step>) -> Result<(), String> {
        let workflow = Workflow {
            name: "w".into(),
            triggers: vec![],
            start: start.into(),
            steps,
            retry: RetryPolicy::default(),
            concurrency: None,
            isolation: Isolation::Run,
            initial_state: None,
            final_state_path: None,
        };
        workflow.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_definition_must_lead_from_its_start_to_ends() {
        use Condition::Always;
        let diamond = vec![
            step("a", &[("b", Always), ("c", Always)]),
            step("b", &[("d", Always)]),
            step("c", &[("d", Always)]),
            step("d", &[]),
        ];
        assert_eq!(check("a", diamond), Ok(()));
        assert_eq!(check("x", vec![step("a", &[])]), Err("there is no step `x`".into()));
        assert_eq!(check("a", vec![step("a", &[("x", Always)])]), Err("there is no step `x`".into()));
        assert_eq!(check("a", vec![step("a", &[]), step("a", &[])]), Err("two steps have the name `a`".into()));
        let circle = vec![step("a", &[("b", Always)]), step("b", &[("c", Always)]), step("c", &[("b", Always)])];
        assert_eq!(check("a", circle), Err("the steps go round in a circle: b -> c -> b".into()));
    }

    #[test]
    fn what_follows_depends_on_how_a_step_ended() {
        let step = step("a", &[("ok", Condition::OnSuccess), ("ko", Condition::OnFailure), ("any", Condition::Always)]);
        let following = |failure: Option<&Failure>| step.following(failure).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(following(None), ["ok", "any"]);
        assert_eq!(following(Some(&Failure::new("JobError", Severity::Fail, ""))), ["ko", "any"]);
        assert_eq!(following(Some(&Failure::new("TimeoutError", Severity::Kill, ""))), ["ko"]);
    }
}
