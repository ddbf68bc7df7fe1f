//! The contracts' methods, once each: from this table come the stub that sends a call and the target that makes it.
//!
//! For: reading what crosses. Progress, process lines, the host's services and the credit of rooms are more than
//! a table can say and have files of their own.
//! A method's number is its place on the wire between two processes of one build; nobody else knows it.

use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{Bytes, Outcome, RNone, ROption, RResult, RString, RVec, Reply, TD_Opaque};

use super::link::{Answering, Called, Target};
use super::remote::{Needed, Once, Remote, no_method};
use super::value::{Pack, Packer, Unpack, Unpacker};
use super::wire::Garbage;

/// Makes the stub and the target of a contract.
///
/// `keeps`: what is asked for when an object is handed over; `own`: the stub's methods that answer from it.
/// `calls` answer when they are done, `notes` never, `sends` only with what goes wrong on this side.
macro_rules! contract {
    (
        $module:ident: $trait:ident, $object:ident, $from:ident;
        keeps { $($kept:ident: $kept_type:ty = |$it:ident| $fetch:expr;)* }
        own { $($own:item)* }
        calls { $($call:literal $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)* }
        notes { $($note:literal $note_name:ident($($note_arg:ident: $note_type:ty),*);)* }
        sends { $($send:literal $send_name:ident($($send_arg:ident: $send_type:ty),*);)* }
    ) => {
        mod $module {
            use super::*;

            struct Stub {
                $($kept: $kept_type,)*
                remote: Remote,
            }

            impl abi::$trait for Stub {
                $($own)*

                $(fn $name(&self, $($arg: $type),*) -> Reply<$answer> {
                    self.remote.call($call, |_to| { $($arg.pack(_to);)* })
                })*

                $(fn $note_name(&self, $($note_arg: $note_type),*) {
                    self.remote.notify($note, |_to| { $($note_arg.pack(_to);)* });
                })*

                $(fn $send_name(&self, $($send_arg: $send_type),*) -> Outcome<()> {
                    self.remote.send($send, |_to| { $($send_arg.pack(_to);)* })
                })*
            }

            struct Offered(abi::$object);

            impl Target for Offered {
                fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
                    #[allow(unused, reason = "not every contract has calls")]
                    let Called { request, method, mut from } = call;
                    match method {
                        $($call => {
                            $(let $arg = <$type>::unpack(&mut from)?;)*
                            from.end()?;
                            Ok(Some(from.link.answer(request, self.0.$name($($arg),*))))
                        })*
                        _ => no_method(method),
                    }
                }

                #[allow(unused, reason = "not every contract has notes")]
                fn notify(&self, method: u8, mut from: Unpacker<'_>) -> Result<(), Garbage> {
                    match method {
                        $($note => {
                            $(let $note_arg = <$note_type>::unpack(&mut from)?;)*
                            from.end()?;
                            self.0.$note_name($($note_arg),*);
                            Ok(())
                        })*
                        $($send => {
                            $(let $send_arg = <$send_type>::unpack(&mut from)?;)*
                            from.end()?;
                            if let RResult::RErr(failure) = self.0.$send_name($($send_arg),*) {
                                from.link.complain(&format!("a message was refused: {}", failure.message));
                            }
                            Ok(())
                        })*
                        _ => no_method(method),
                    }
                }
            }

            impl Pack for abi::$object {
                fn pack(self, to: &mut Packer<'_>) {
                    $(let $kept: $kept_type = { let $it = &self; $fetch };)*
                    to.export(Offered(self));
                    $($kept.pack(to);)*
                }
            }

            impl Unpack for abi::$object {
                fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
                    let remote = Remote::unpack(from)?;
                    $(let $kept = <$kept_type>::unpack(from)?;)*
                    Ok(abi::$from::from_value(Stub { $($kept,)* remote }, TD_Opaque))
                }
            }
        }
    };
}

contract! {
    plugin: Plugin, PluginObject, Plugin_TO;
    keeps {
        env_providers: Once<RVec<abi::EnvProviderObject>> = |it| Once::new(it.env_providers());
        blob_store: Once<ROption<abi::BlobStoreObject>> = |it| Once::new(it.blob_store());
        kernel_backends: Once<RVec<abi::KernelBackendObject>> = |it| Once::new(it.kernel_backends());
        rooms: Once<ROption<abi::RoomsObject>> = |it| Once::new(it.rooms());
    }
    own {
        fn env_providers(&self) -> RVec<abi::EnvProviderObject> {
            self.env_providers.take().unwrap_or_default()
        }
        fn blob_store(&self) -> ROption<abi::BlobStoreObject> {
            self.blob_store.take().unwrap_or(RNone)
        }
        fn kernel_backends(&self) -> RVec<abi::KernelBackendObject> {
            self.kernel_backends.take().unwrap_or_default()
        }
        fn rooms(&self) -> ROption<abi::RoomsObject> {
            self.rooms.take().unwrap_or(RNone)
        }
    }
    calls {
        0 start() -> RString;
        1 stop(grace_ms: u64) -> RString;
    }
    notes {}
    sends {}
}

contract! {
    env_provider: EnvProvider, EnvProviderObject, EnvProvider_TO;
    keeps {
        info: RString = |it| it.info();
    }
    own {
        fn info(&self) -> RString {
            self.info.clone()
        }
    }
    calls {
        0 detect(dir: RString) -> RString;
        1 plan(request: RString) -> RString;
        2 create(plan: RString, prefix: RString, task: abi::ProgressSinkObject) -> RString;
        3 clone_env(template: RString, prefix: RString, task: abi::ProgressSinkObject) -> RString;
        4 install(env: RString, packages: RString, task: abi::ProgressSinkObject) -> RString;
        5 optimize(env: RString) -> RString;
        6 verify(env: RString) -> RString;
        7 launch(env: RString) -> RString;
        8 identities(request: RString) -> RString;
    }
    notes {}
    sends {}
}

contract! {
    blob_store: BlobStore, BlobStoreObject, BlobStore_TO;
    keeps {}
    own {}
    calls {
        0 put(content: Bytes, media_type: RString) -> RString;
        1 get(digest: RString) -> ROption<abi::Blob>;
        2 locate(digest: RString) -> RString;
        3 sweep(live: RString) -> RString;
        4 flush() -> RString;
    }
    notes {}
    sends {}
}

contract! {
    kernel_backend: KernelBackend, KernelBackendObject, KernelBackend_TO;
    keeps {}
    own {}
    calls {
        0 kinds() -> RString;
        1 launch(spec: RString, events: abi::KernelEventsObject) -> abi::KernelObject;
        2 running() -> RString;
        3 attach(kernel: RString, after: u64, events: abi::KernelEventsObject) -> abi::KernelObject;
        4 adopt(warm: RString, spec: RString, events: abi::KernelEventsObject) -> abi::KernelObject;
    }
    notes {}
    sends {}
}

contract! {
    kernel: Kernel, KernelObject, Kernel_TO;
    keeps {
        info: RString = |it| it.info();
        _needed: Needed = |_it| Needed::default();
    }
    own {
        fn info(&self) -> RString {
            self.info.clone()
        }
    }
    calls {
        0 interrupt() -> RString;
        1 shutdown(grace_ms: u64) -> RString;
    }
    notes {
        2 acknowledge(up_to: u64);
    }
    sends {
        3 send(channel: u8, message: Bytes);
    }
}

contract! {
    kernel_events: KernelEvents, KernelEventsObject, KernelEvents_TO;
    keeps {}
    own {}
    calls {}
    notes {
        0 message(sequence: u64, channel: u8, message: Bytes);
        1 exited(report: RString);
    }
    sends {}
}

contract! {
    environments: Environments, EnvironmentsObject, Environments_TO;
    keeps {}
    own {}
    calls {
        0 acquire(need: RString, task: abi::ProgressSinkObject) -> RString;
        1 install(lease: RString, packages: RString, task: abi::ProgressSinkObject) -> RString;
        2 release(lease: RString, how: RString) -> RString;
        3 trust(need: RString) -> RString;
        4 approve(need: RString) -> RString;
    }
    notes {}
    sends {}
}
