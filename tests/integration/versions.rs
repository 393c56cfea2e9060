//! Versions of an adaptor side by side: in one job, and as the one that a job asks for.

use serde_json::json;

use crate::support::Run;

#[test]
fn a_job_may_import_two_versions_of_an_adaptor() {
    let source = "
        import * as old from '@openfn/language-common_2.1.1';
        import * as current from '@openfn/language-common';
        old.cursor('2020-01-01', { key: 'before' });
        current.cursor('2026-01-01');
        old.each('$.items[*]', current.fn(state => ({ ...state, sum: (state.sum ?? 0) + state.data })));
        fn(state => ({
            ...state,
            same: [old.fn === current.fn, old.http === current.http],
            only: [typeof old.expandReferences, typeof old.assert, typeof current.expandReferences, typeof current.assert],
            dates: [old.dateFns.format(new Date(0), 'yyyy'), current.dateFns.format(new Date(0), 'yyyy')],
        }));
    ";
    for order in [["common@2.1.1", "common"], ["common", "common@2.1.1"]] {
        let run = Run::of("job.js", source).adaptor(order[0]).adaptor(order[1]).state(r#"{ "items": [1, 2, 3] }"#);
        let state = run.go().completed();
        assert_eq!((&state["before"], &state["cursor"]), (&json!("2020-01-01"), &json!("2026-01-01")));
        assert_eq!(state["sum"], 6);
        assert_eq!(state["same"], json!([false, false]));
        assert_eq!(state["only"], json!(["function", "undefined", "undefined", "function"]));
        assert_eq!(state["dates"], json!(["1970", "1970"]));
    }
}

#[test]
fn a_job_gets_the_version_it_asks_for() {
    let source = "fn(state => ({ ...state, assert: typeof assert }))";
    for (adaptor, assert) in [("common@2.1.1", "undefined"), ("common@3.3.4", "function"), ("common", "function")] {
        let ran = Run::of("job.js", source).adaptor(adaptor).args(&["--log", "info"]).go();
        let version = if adaptor == "common@2.1.1" { "2.1.1" } else { "3.3.4" };
        assert!(ran.stderr.contains(&format!("@openfn/language-common@{version}")), "{}", ran.stderr);
        assert_eq!(ran.completed()["assert"], assert);
    }
}

#[test]
fn an_error_names_the_version_it_comes_from() {
    for version in ["2.1.1", "3.3.4"] {
        let ran = Run::of("job.js", "each(5, fn(s => s))").adaptor(&format!("common@{version}")).go();
        assert!(ran.stderr.contains(&format!("@openfn/language-common@{version}/dist/index.js")), "{}", ran.stderr);
        assert_eq!(ran.failure()["name"], "AdaptorError");
    }
}
