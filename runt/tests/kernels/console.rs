//! `runt jupyter console`.

use crate::world::{World, number};

#[test]
fn what_is_piped_in_runs_line_by_line() {
    let Some(world) = World::new() else { return };
    let said = world.runt_with_input(&["jupyter", "console", "python3"], "1+1\n").good();
    assert_eq!(said.out, "Out[1]: 2\n");
    let code = "def twice(x):\n    print('x is', x)\n    return 2 * x\n\ntwice(input('what? '))\nword\nprint('end', end='')";
    let said = world.runt_with_input(&["jupyter", "console", "python3"], code);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.out, "what? x is word\nOut[2]: 'wordword'\nend\n");
    let said = world.runt_with_input(&["jupyter", "console", "python3"], "1/0\n'on'\n");
    assert!(said.code == 1 && said.err.contains("ZeroDivisionError"), "{}", said.err);
    assert_eq!(said.out, "Out[2]: 'on'\n");
    assert_eq!(std::fs::read_dir(world.home().join("run/jupyter")).unwrap().count(), 0);
}

#[test]
fn an_image_is_a_link_and_a_command_will_do() {
    let Some(world) = World::new() else { return };
    let code = "from IPython.display import display\n\
                display({'image/png': 'aGVsbG8=', 'text/plain': '<Figure>'}, raw=True)\n";
    let python = std::env::var("RUNTIMED_TEST_KERNEL_PYTHON").unwrap();
    let command = format!("{python} -m ipykernel_launcher -f {{connection_file}}");
    let said = world.runt_with_input(&["jupyter", "console", "--cmd", &command], code).good();
    let path = said.out.trim_end().strip_prefix("[image/png, 5 bytes] file://").unwrap().to_owned();
    assert_eq!(std::fs::read(path).unwrap(), b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_of_a_notebook_is_shared() {
    let Some(world) = World::new() else { return };
    world.runt(&["daemon", "restart"]).good();
    let session = world.notebook("a.ipynb").await;
    let pid = number(&session, "import os; kept = 41; os.getpid()").await;
    let path = world.home().join("work/a.ipynb");
    let id = session.notebook_id().unwrap();
    for name in [path.to_str().unwrap(), "a.ipynb", &id, &pid.to_string()] {
        let said =
            world.runt_with_input(&["jupyter", "console", "--existing", name], "kept += 1\nos.getpid()\n");
        assert!(said.good().out.ends_with(&format!("]: {pid}\n")), "{name}");
    }
    assert_eq!(number(&session, "kept").await, 45);
    let said = world.runt_with_input(&["jupyter", "console", "--existing", "b.ipynb"], "");
    assert!(said.err.contains("There is no kernel or open notebook b.ipynb"), "{}", said.err);
}
