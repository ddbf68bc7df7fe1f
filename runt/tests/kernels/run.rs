//! `runt run`: a notebook as a script.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::world::World;

/// A notebook in the folder `work`, with these cells.
fn notebook(world: &World, name: &str, cells: &[&str]) -> PathBuf {
    let cell = |(number, source): (usize, &&str)| {
        json!({
            "cell_type": "code", "id": format!("cell-{number}"), "source": source,
            "metadata": {}, "outputs": [], "execution_count": null,
        })
    };
    let cells: Vec<Value> = cells.iter().enumerate().map(cell).collect();
    let path = world.home().join("work").join(name);
    let whole = json!({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5});
    fs::write(&path, whole.to_string()).unwrap();
    path
}

fn started(world: &World, name: &str) -> Child {
    let mut command = world.command("runt");
    command.args(["run", name]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn what_a_cell_prints_is_seen_while_it_runs() {
    let Some(world) = World::new() else { return };
    world.runt(&["daemon", "restart"]).good();
    // It goes on only when somebody has seen what it printed.
    let waits = "import os, pathlib\nprint('first', flush=True)\nwhile not pathlib.Path('go').exists(): pass\nprint('last')";
    notebook(&world, "live.ipynb", &[waits, "6 * 7", "1 / 0", "print('never')"]);
    let mut run = started(&world, "live.ipynb");
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "first");
    fs::write(world.home().join("work/go"), "").unwrap();
    assert_eq!(lines.collect::<Vec<_>>(), ["last", "42"]);
    let mut errors = String::new();
    run.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(1));
    assert!(
        errors.contains("[2/4] 6 * 7\n") && errors.contains("ZeroDivisionError: division by zero"),
        "{errors}"
    );
    assert!(!errors.contains("[4/4]"), "{errors}");
    let saved = fs::read_to_string(world.home().join("work/live.ipynb")).unwrap();
    assert!(saved.contains("last") && saved.contains("ZeroDivisionError"), "{saved}");
}

#[test]
fn a_run_outlives_the_daemon() {
    let Some(world) = World::new() else { return };
    world.runt(&["daemon", "restart"]).good();
    let picture = "from IPython.display import Image\nImage(bytes(5000), format='png')";
    let counts = "import pathlib, time\nfor number in range(200):\n    print(number, flush=True)\n    time.sleep(0.01)\n\
        while not pathlib.Path('go').exists(): pass";
    notebook(&world, "outlives.ipynb", &[counts, picture]);
    let mut run = started(&world, "outlives.ipynb");
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.find(|line| line == "10").as_deref(), Some("10"));
    world.runt(&["daemon", "restart"]).good();
    fs::write(world.home().join("work/go"), "").unwrap();
    let rest: Vec<String> = lines.collect();
    let mut errors = String::new();
    run.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(run.wait().unwrap().success(), "{errors}");
    let numbers: Vec<String> = (11..200).map(|number| number.to_string()).collect();
    assert_eq!(rest[..numbers.len()], numbers, "{errors}");
    assert!(rest.iter().any(|line| line.starts_with("[image/png,")), "{rest:?}");
    assert!(
        errors.contains("the daemon is gone; the cell goes on.")
            && errors.contains("the next daemon is there")
    );
}

#[test]
fn a_run_that_is_interrupted_keeps_what_there_is() {
    let Some(world) = World::new() else { return };
    world.runt(&["daemon", "restart"]).good();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let path = notebook(
            &world,
            "long.ipynb",
            &["print('begun', flush=True)\nimport time; time.sleep(600)", "2"],
        );
        let mut run = started(&world, "long.ipynb");
        let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert_eq!(lines.next().unwrap(), "begun");
        let killed =
            std::process::Command::new("kill").args([&format!("-{signal}"), &run.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let mut errors = String::new();
        run.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(code), "{errors}");
        // What the kernel says of it may come when the cell has ended already.
        let told = ["KeyboardInterrupt", "the cell was interrupted"];
        assert!(told.iter().any(|text| errors.contains(text)), "{errors}");
        assert!(fs::read_to_string(&path).unwrap().contains("begun"));
        // The kernel was ours alone.
        assert_eq!(world.runt(&["ps"]).good().out, "No running kernels found.\n");
    }
}
