//! In a process of its own: everything is survived.

use crate::processes;
use crate::scenarios::each;
use crate::world::{BAD, Tools};

each! { "child" no_build:
    a_panic "panic:create",
    a_panic_in_a_destructor "destructor:create",
    an_error_without_end "error:create",
    a_create_that_hangs "hang:create",
    a_create_that_blocks "block:create",
    an_exit "exit:create",
    an_abort "abort:verify",
    a_segfault "segfault:create",
    a_segfault_in_plan "segfault:plan",
    a_stack_that_overflows "overflow:create",
    memory_without_end "memory:create",
    progress_without_end "progress:create",
    half_an_environment "half:create",
    a_plan_of_100_megabytes "huge:plan",
    an_environment_of_100_megabytes "huge:create",
}

each! { "child" builds:
    a_panic_in_optimize "panic:optimize",
    a_create_that_is_slow "slow:create",
    threads_without_end "threads:create",
    output_without_end "print:create",
    logs_without_end "log:create",
    work_without_end "spin:create",
    orphans "orphan:create",
    another_key_each_time "random-key:plan",
    a_key_that_is_a_path "bad-key:plan",
}

each! { "child" no_notebook:
    a_segfault_in_launch "segfault:launch",
    a_launch_of_100_megabytes "huge:launch",
    a_program_that_does_not_exist "no-program:launch",
}

each! { "child" no_plugin:
    a_panic_in_new "panic:new",
    a_start_that_never_ends "hang:start",
    an_exit_in_new "exit:new",
    a_segfault_at_the_start "segfault:start",
    the_name_of_somebody_else "lie:info",
}

each! { "child" no_end:
    a_panic_in_stop "panic:stop",
    a_segfault_in_stop "segfault:stop",
    a_stop_that_never_ends "hang:stop",
    a_stop_that_blocks "block:stop",
}

/// Each of its threads: the plugin's own are the ones that could burn processors.
#[tokio::test(flavor = "multi_thread")]
async fn its_process_gives_way_to_the_daemon() {
    let Some(tools) = Tools::find() else { return };
    let mut world = tools.world("child", "").await;
    let process = world.row(BAD).await.process.unwrap();
    let nice = processes::niceness(process);
    assert!(nice.len() > 1 && nice.iter().all(|nice| *nice == 10), "{nice:?}");
    world.ends_well().await;
}
