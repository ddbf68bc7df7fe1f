//! The project's own plugins pass every suite, in the daemon's process model and in a child, and no case of theirs is
//! passed over but for want of pixi, which tests cannot install.

use std::env;
use std::path::{Path, PathBuf};

use super::support::{check, faults};

/// What `runtimed-pixi` says where there is no pixi.
const NO_PIXI: &str = "pixi is not installed";

/// A folder that `cargo xtask test` has prepared.
fn prepared(variable: &str) -> Option<PathBuf> {
    let folder = env::var_os(variable).map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: no staged plugins. `cargo xtask test` stages them.");
    }
    folder
}

fn is_good(folder: &Path, carrier: &str) {
    let report = check(folder, &["--carrier", carrier]);
    assert!(faults(&report).is_empty(), "{report:#}");
    assert_eq!(report["plugin"], folder.file_name().unwrap().to_str().unwrap());
    let cases = report["cases"].as_array().unwrap();
    let ran = |carrier: &str| cases.iter().filter(|case| case["carrier"] == carrier).count();
    assert!(ran("files") > 0 && ran(carrier) > 0 && cases.len() == ran("files") + ran(carrier));
    let tools = env::var_os("RUNTIMED_TEST_KERNEL_PYTHON").is_some();
    let mut skipped = cases.iter().filter(|case| case["outcome"]["outcome"] == "skipped").collect::<Vec<_>>();
    skipped.retain(|case| !case["outcome"].to_string().contains(NO_PIXI));
    assert!(skipped.is_empty() || !tools, "{skipped:#?}");
}

/// One test for each plugin and carrier.
macro_rules! good {
    ($($name:ident: $variable:literal $folder:literal $carrier:literal),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                if let Some(folder) = prepared($variable) {
                    is_good(&folder.join($folder), $carrier);
                }
            }
        )+
    };
}

good! {
    blobs_in_process: "RUNTIMED_TEST_DIST" "lib/runt/plugins/blobs" "in-process",
    blobs_in_a_child: "RUNTIMED_TEST_DIST" "lib/runt/plugins/blobs" "child",
    conda_in_process: "RUNTIMED_TEST_DIST" "lib/runt/plugins/conda" "in-process",
    conda_in_a_child: "RUNTIMED_TEST_DIST" "lib/runt/plugins/conda" "child",
    jupyter_in_process: "RUNTIMED_TEST_DIST" "lib/runt/plugins/jupyter" "in-process",
    jupyter_in_a_child: "RUNTIMED_TEST_DIST" "lib/runt/plugins/jupyter" "child",
    pixi_in_process: "RUNTIMED_TEST_THIRD_PARTY" "io.github.runtimed.pixi" "in-process",
    pixi_in_a_child: "RUNTIMED_TEST_THIRD_PARTY" "io.github.runtimed.pixi" "child",
    rooms_in_process: "RUNTIMED_TEST_DIST" "lib/runt/plugins/rooms" "in-process",
    rooms_in_a_child: "RUNTIMED_TEST_DIST" "lib/runt/plugins/rooms" "child",
    uv_in_process: "RUNTIMED_TEST_DIST" "lib/runt/plugins/uv" "in-process",
    uv_in_a_child: "RUNTIMED_TEST_DIST" "lib/runt/plugins/uv" "child",
    venv_in_process: "RUNTIMED_TEST_THIRD_PARTY" "io.github.runtimed.venv" "in-process",
    venv_in_a_child: "RUNTIMED_TEST_THIRD_PARTY" "io.github.runtimed.venv" "child",
}
