//! Many notebooks at once, and few environments.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::world::{
    log, notebook, pooled, prefix, run, settings, settled, start, stop, templates, until, value,
};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_notebooks_at_once_from_a_pool_of_two() {
    let Some(daemon) = start(&settings(2), |_| {}) else { return };
    settled(&daemon, 2);
    let (template, _) = templates(&daemon).remove(0);
    let prefixes = join_all((0..20).map(async |_| {
        let session = notebook(&daemon).await;
        assert_eq!(value(&session, "first", "6 * 7").await, "42");
        (prefix(&session).await, session)
    }));
    let (prefixes, sessions): (Vec<_>, Vec<_>) = prefixes.await.into_iter().unzip();
    let each: BTreeSet<_> = prefixes.iter().collect();
    assert_eq!(each.len(), 20, "nobody shares");
    assert!(!each.contains(&template) && each.iter().all(|prefix| pooled(&daemon).contains(prefix)));

    // What one does to its own environment, nobody else sees, and neither does who comes later.
    let spoil = "import site, pathlib, ipykernel; here = pathlib.Path(site.getsitepackages()[0])\n\
                 (here / 'mine.py').write_text('x = 1'); (here / 'sitecustomize.py').write_text('raise SystemExit')\n\
                 pathlib.Path(ipykernel.__file__).unlink(); 'done'";
    assert_eq!(value(&sessions[0], "spoil", spoil).await, "done");
    let pool = until(&daemon, |pool| pool["available"] == 2 && pool["warming"] == 0);
    assert_eq!(pool["consecutive_failures"], 0, "{pool}");
    for session in [&notebook(&daemon).await, &sessions[1]] {
        let (execution, outputs) = run(session, "look", "import ipykernel.kernelbase\nimport mine").await;
        assert_eq!(execution.success, Some(false));
        assert!(outputs.contains("ModuleNotFoundError") && outputs.contains("mine"), "{outputs}");
    }
    assert_eq!(templates(&daemon).len(), 1);
    assert!(log(&daemon).matches("how=\"copied\"").count() >= 18, "{}", log(&daemon));
    assert_eq!(daemon.ask(json!({ "type": "list_rooms" }))["rooms"].as_array().unwrap().len(), 21);
    stop(daemon);
}
