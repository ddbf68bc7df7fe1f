//! One end of a socket against another, and against whatever a process can send.

use super::*;
use crate::adapter::child::incoming::MAX_CALLS;
use crate::adapter::child::queue::Queue;
use crate::adapter::child::value::{Pack, Unpack};
use runtimed_plugin_abi::RString;
use tokio::io::AsyncWriteExt;

/// Answers method 0 with its argument, never answers method 1, and is told things with method 2.
struct Echo;

impl Target for Echo {
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
        let Called { request, method, mut from } = call;
        let text = RString::unpack(&mut from)?;
        from.end()?;
        match method {
            0 => Ok(Some(from.link.answer(request, FfiFuture::new(async { RResult::ROk(text) })))),
            1 => Ok(Some(Box::pin(std::future::pending()))),
            _ => Err(Garbage::new("a call of an unknown method")),
        }
    }

    fn notify(&self, _: u8, mut from: Unpacker<'_>) -> Result<(), Garbage> {
        RString::unpack(&mut from)?;
        from.end()
    }
}

/// An end with an [`Echo`] as its root, and the raw other end.
fn end(of_daemon: bool) -> (Link, OwnedReadHalf, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (link, read) = Link::new(ours, of_daemon);
    link.export_root(Arc::new(Echo));
    (link, read, theirs)
}

/// What becomes of a link that is sent `frames`.
async fn sent(frames: &[BytesMut]) -> LinkEnd {
    let (link, read, mut theirs) = end(true);
    for frame in frames {
        theirs.write_all(&wire::finish(frame.clone()).unwrap()).await.unwrap();
    }
    // Read, or a link that answers would wait for us.
    let (mut answers, mut rest) = (Vec::new(), theirs);
    tokio::select! {
        end = link.run(read, Delivery::AtOnce) => end,
        _ = rest.read_to_end(&mut answers) => unreachable!("the link is still there"),
    }
}

fn with(mut frame: BytesMut, values: &[u8]) -> BytesMut {
    frame.extend_from_slice(values);
    frame
}

#[tokio::test]
async fn whatever_breaks_the_contract_ends_the_link_with_its_name() {
    let stuck = || with(wire::call(1, ROOT, 1), b"\x02ab");
    for (frames, reason) in [
        (vec![wire::reply(5)], "an answer to call 5, which is not under way"),
        (vec![wire::release(7)], "something for object 7, which it does not hold"),
        (vec![wire::notify(7, 0)], "something for object 7, which it does not hold"),
        (vec![wire::call(1, 7, 0)], "something for object 7, which it does not hold"),
        (vec![wire::release(ROOT), wire::call(1, ROOT, 0)], "something for object 0, which it does not hold"),
        (vec![with(wire::call(1, ROOT, 9), b"\x02ab")], "a call of an unknown method"),
        (vec![with(wire::call(1, ROOT, 0), b"\x09ab")], "a value longer than its frame"),
        (vec![with(wire::call(1, ROOT, 0), b"\x02\xff\xff")], "text that is not UTF-8"),
        (vec![with(wire::notify(ROOT, 2), b"\x02abc")], "values that nobody asked for"),
        (vec![stuck(), stuck()], "call 1 twice"),
    ] {
        let end = sent(&frames).await;
        assert!(matches!(&end, LinkEnd::Garbage(garbage) if garbage.0 == reason), "{end:?}, not {reason}");
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_fails_its_call_and_ends_the_link() {
    let (link, read, mut theirs) = end(true);
    let call = link.call::<RString>(3, 4, |to| RString::from("x").pack(to));
    theirs.write_all(&wire::finish(with(wire::reply(1), b"\x01\x05a")).unwrap()).await.unwrap();
    let end = link.run(read, Delivery::AtOnce).await;
    assert!(matches!(end, LinkEnd::Garbage(_)), "{end:?}");
    let failure = call.await.unwrap_err();
    assert_eq!(failure.message, "the answer makes no sense: it has a value longer than its frame");
}

#[tokio::test]
async fn every_call_is_answered_once_also_one_that_is_cancelled_or_one_too_many() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ((caller, from_echo), (echo, from_caller)) = (Link::new(ours, true), Link::new(theirs, true));
    echo.export_root(Arc::new(Echo));
    let use_it = async {
        let text = |text: String| move |to: &mut Packer<'_>| RString::from(text).pack(to);
        let mut stuck: Vec<Reply<RString>> =
            (0..MAX_CALLS).map(|call| caller.call(ROOT, 1, text(call.to_string()))).collect();
        let refused = caller.call::<RString>(ROOT, 0, text("one more".to_owned())).await.unwrap_err();
        assert_eq!(refused.message, "too many calls are under way");
        let mut busy = caller.busy();
        assert_eq!(*busy.borrow(), MAX_CALLS);
        stuck.truncate(MAX_CALLS - 100);
        busy.wait_for(|busy| *busy == MAX_CALLS - 100).await.unwrap();
        assert_eq!(caller.call::<RString>(ROOT, 0, text("again".to_owned())).await.unwrap(), "again");
        let gone = PluginError::unavailable("gone");
        caller.end(failure(gone));
        for call in stuck {
            assert_eq!(call.await.unwrap_err().message, "gone");
        }
        assert_eq!(*busy.borrow(), 0);
        assert_eq!(
            caller.call::<RString>(ROOT, 0, text("late".to_owned())).await.unwrap_err().message,
            "gone"
        );
    };
    tokio::select! {
        () = use_it => {}
        end = caller.run(from_echo, Delivery::AtOnce) => unreachable!("{end:?}"),
        end = echo.run(from_caller, Delivery::AtOnce) => unreachable!("{end:?}"),
    }
}

#[tokio::test]
async fn who_does_not_read_is_given_up_and_lossy_messages_are_left_out() {
    let (link, read, _theirs) = end(true);
    let megabyte = RString::from("x".repeat(1 << 20));
    for _ in 0..1000 {
        link.notify_lossy(1, 0, |to| megabyte.clone().pack(to));
    }
    assert!((990..1000).contains(&link.take_lost()), "nearly all");
    let mut refused = 0;
    for _ in 0..300 {
        refused += usize::from(link.notify(1, 0, |to| megabyte.clone().pack(to)).is_err());
    }
    assert!((40..50).contains(&refused), "{refused}");
    let end = link.run(read, Delivery::AtOnce).await;
    assert!(matches!(&end, LinkEnd::Greedy(reason) if reason.contains("does not read")), "{end:?}");
    link.end(failure(PluginError::unavailable("gone")));
    assert!(link.notify(1, 0, |to| megabyte.clone().pack(to)).is_ok(), "it goes nowhere");
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_takes_its_objects_back() {
    let (link, _read, _theirs) = end(true);
    let long = RString::from("x".repeat(MAX_FRAME));
    let call = link.call::<RString>(1, 0, |to| {
        to.export(Echo);
        long.pack(to);
    });
    let failure = call.await.unwrap_err();
    assert!(
        failure.message.contains("are too many for a plugin in a process of its own"),
        "{}",
        failure.message
    );
    assert_eq!(locked(&link.0.exports).objects.len(), 1, "the root");
}

#[tokio::test]
async fn an_answer_waits_for_what_came_before_it_but_not_one_that_a_thread_waits_for() {
    let (link, read, mut theirs) = end(false);
    let queue = Queue::start().unwrap();
    let (answered, order) = mpsc::channel();
    let (asker, asked) = (link.clone(), answered.clone());
    queue.add(0, false, move || {
        let answer = asker.ask::<RString>(1, 0, |_| ());
        asked.send(answer.unwrap().into_string()).unwrap();
    });
    let call = link.call::<RString>(1, 1, |_| ());
    let caller = async move {
        let answer = call.await.unwrap().into_string();
        answered.send(answer).unwrap();
    };
    // Answers the call first and the question second.
    let other = async {
        let (mut buffer, mut requests) = (BytesMut::new(), [0, 0]);
        while requests.contains(&0) {
            theirs.read_buf(&mut buffer).await.unwrap();
            while let Some(Frame::Call { request, method, .. }) = wire::take(&mut buffer).unwrap() {
                requests[usize::from(method)] = request;
            }
        }
        for (request, text) in [(requests[1], b"\x01\x01c"), (requests[0], b"\x01\x01q")] {
            theirs.write_all(&wire::finish(with(wire::reply(request), text)).unwrap()).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = caller => {}
        () = other => {}
        end = link.run(read, Delivery::InTurn(queue)) => unreachable!("{end:?}"),
    }
    assert!(order.try_iter().eq(["q", "c"]));
}
