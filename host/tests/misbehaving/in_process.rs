//! In the daemon's own process, where panics, errors and waiting can be survived, and nothing else.

use crate::scenarios::each;

each! { "in-process" no_build:
    a_panic_in_plan "panic:plan",
    a_panic_in_create "panic:create",
    a_panic_in_verify "panic:verify",
    a_panic_in_a_destructor "destructor:create",
    an_error_without_end "error:create",
    half_an_environment "half:create",
    a_document_of_100_megabytes "huge:plan",
    a_create_that_hangs "hang:create",
}

each! { "in-process" builds:
    a_panic_in_optimize "panic:optimize",
}

each! { "in-process" no_notebook:
    a_panic_in_launch "panic:launch",
}

each! { "in-process" no_plugin:
    a_panic_in_new "panic:new",
    a_panic_in_info "panic:info",
    a_panic_in_start "panic:start",
    the_name_of_somebody_else "lie:info",
}

each! { "in-process" no_end:
    a_panic_in_stop "panic:stop",
    a_stop_that_never_ends "hang:stop",
}
