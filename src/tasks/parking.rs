//! Parked waits: one epoll set and a deadline for each.

use super::moment;
use crate::error::{Context as _, Result};
use crate::sync::Mutex;
use crate::sys::epoll::{Epoll, Interest};
use crate::sys::event::Event;
use crate::sys::memory::unforked_stack;
use crate::sys::poll;
use std::collections::HashMap;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// It only calls wakers, unless there is no thread to run what they wake. Only touched pages count.
const STACK: usize = 512 << 10;
/// How long the thread stays idle before it exits.
const IDLE: Duration = Duration::from_secs(1);
const BELL: u64 = 0;

struct Parking {
    epoll: Epoll,
    /// Raised to make the thread check the deadlines again.
    bell: Event,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    parked: HashMap<u64, Parked>,
}

struct Parked {
    deadline: Instant,
    /// None: it was woken and has not been polled since.
    waker: Option<Waker>,
}

/// Present while its thread is running. Locked before its state.
static PARKING: Mutex<Option<Arc<Parking>>> = Mutex::new(None);

/// A parked wait; dropping it removes it.
struct Ticket {
    parking: Arc<Parking>,
    number: u64,
}

impl Ticket {
    /// Parks a wait and wakes `waker` by `deadline`.
    fn new(deadline: Instant, waker: &Waker) -> Result<Ticket> {
        let mut place = PARKING.lock();
        let parking = match &*place {
            Some(parking) => Arc::clone(parking),
            None => {
                let parking = Parking::start()?;
                *place = Some(Arc::clone(&parking));
                parking
            }
        };
        let number = {
            let mut state = parking.state.lock();
            state.last += 1;
            let number = state.last;
            state.parked.insert(number, Parked { deadline, waker: Some(waker.clone()) });
            number
        };
        drop(place);
        parking.bell.raise();
        Ok(Ticket { parking, number })
    }

    /// Parks the wait again after it was woken.
    fn renew(&self, deadline: Instant, waker: &Waker) {
        let parked = Parked { deadline, waker: Some(waker.clone()) };
        self.parking.state.lock().parked.insert(self.number, parked);
        self.parking.bell.raise();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.parking.state.lock();
        state.parked.remove(&self.number);
        // The thread may become idle.
        if state.parked.is_empty() {
            self.parking.bell.raise();
        }
    }
}

impl Parking {
    fn start() -> Result<Arc<Parking>> {
        let what = || "set up the epoll of what waits";
        let (epoll, bell) = (Epoll::new().context(what)?, Event::new().context(what)?);
        epoll.add(bell.as_fd(), BELL, Interest::READ).context(what)?;
        let parking = Arc::new(Parking { epoll, bell, state: Mutex::default() });
        let own = Arc::clone(&parking);
        std::thread::Builder::new()
            .name("parked".into())
            .stack_size(STACK)
            .spawn(move || own.watch())
            .context(|| "start the thread that waits for others")?;
        Ok(parking)
    }

    /// The main loop of the thread.
    fn watch(&self) {
        let _own = unforked_stack();
        let mut alone_since = None;
        loop {
            let now = Instant::now();
            let (due, woken) = {
                let mut state = self.state.lock();
                alone_since = state.parked.is_empty().then(|| alone_since.unwrap_or(now));
                let late = state.parked.values_mut().filter(|parked| parked.deadline <= now);
                let woken: Vec<Waker> = late.filter_map(|parked| parked.waker.take()).collect();
                let waits = state.parked.values().filter(|parked| parked.waker.is_some());
                (waits.map(|parked| parked.deadline).min(), woken)
            };
            woken.into_iter().for_each(Waker::wake);
            if alone_since.is_some_and(|since| now >= since + IDLE) {
                let mut place = PARKING.lock();
                if self.state.lock().parked.is_empty() {
                    *place = None;
                    return;
                }
            }
            let limit = match (due, alone_since) {
                (Some(due), _) => Some(due.saturating_duration_since(now)),
                (None, Some(since)) => Some((since + IDLE).saturating_duration_since(now)),
                (None, None) => None,
            };
            match self.epoll.wait(limit) {
                Ok(Some(ready)) if ready.token == BELL => {
                    self.bell.clear();
                    let _ = self.epoll.arm(self.bell.as_fd(), BELL, Interest::READ);
                }
                Ok(Some(ready)) => {
                    let waker = self.state.lock().parked.get_mut(&ready.token).and_then(|p| p.waker.take());
                    waker.into_iter().for_each(Waker::wake);
                }
                Ok(None) => {}
                // Descriptors wake nobody then, but deadlines still do.
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// A timer; dropping it cancels it.
#[derive(Default)]
pub(super) struct Alarm(Option<Ticket>);

impl Alarm {
    /// Arranges for `waker` to be woken by `deadline`.
    pub(super) fn set(&mut self, deadline: Instant, waker: &Waker) -> Result<()> {
        match &self.0 {
            Some(ticket) => ticket.renew(deadline, waker),
            None => self.0 = Some(Ticket::new(deadline, waker)?),
        }
        Ok(())
    }
}

struct Ready<'a, const N: usize> {
    fds: [BorrowedFd<'a>; N],
    interest: Interest,
    deadline: Instant,
    ticket: Option<Ticket>,
}

impl<const N: usize> Ready<'_, N> {
    /// Registers the descriptors, each for one event.
    fn park(&mut self, waker: &Waker) -> Result<()> {
        let mut fds = self.fds.iter();
        let registered = match &self.ticket {
            Some(ticket) => {
                ticket.renew(self.deadline, waker);
                fds.try_for_each(|fd| ticket.parking.epoll.arm(*fd, ticket.number, self.interest))
            }
            None => {
                let ticket = self.ticket.insert(Ticket::new(self.deadline, waker)?);
                fds.try_for_each(|fd| ticket.parking.epoll.add(*fd, ticket.number, self.interest))
            }
        };
        registered.context(|| "epoll_ctl()")
    }
}

impl<const N: usize> Future for Ready<'_, N> {
    type Output = Result<[bool; N]>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let look = |limit| poll::any(this.fds, this.interest, Some(limit)).context(|| "poll()");
        let found = match this.ticket {
            // Block this thread at first.
            None => moment::spend(|left| look(this.deadline.min(Instant::now() + left))),
            // It was woken, so do not block.
            Some(_) => look(Instant::now()),
        };
        let waits = found.as_ref().is_ok_and(|found| !found.contains(&true));
        if !waits || Instant::now() >= this.deadline {
            return Poll::Ready(found);
        }
        match this.park(context.waker()) {
            Ok(()) => Poll::Pending,
            Err(e) => Poll::Ready(Err(e)),
        }
    }
}

impl<const N: usize> Drop for Ready<'_, N> {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            for fd in &self.fds {
                // Fails only if adding it failed.
                let _ = ticket.parking.epoll.remove(*fd);
            }
        }
    }
}

/// Waits until one of the two is readable or at EOF, or (a pidfd) has exited; returns which. None of them: the deadline
/// has passed.
pub(crate) async fn either(fds: [BorrowedFd<'_>; 2], deadline: Instant) -> Result<[bool; 2]> {
    Ready { fds, interest: Interest::READ, deadline, ticket: None }.await
}

/// Waits until `fd` is ready as specified by `interest`; false if the deadline has passed.
pub(crate) async fn ready(fd: BorrowedFd<'_>, interest: Interest, deadline: Instant) -> Result<bool> {
    let [ready] = Ready { fds: [fd], interest, deadline, ticket: None }.await?;
    Ok(ready)
}

/// Sleeps. An error if there is no thread to wake it.
pub async fn sleep(limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut alarm = Alarm::default();
    std::future::poll_fn(move |context| {
        if Instant::now() >= deadline {
            Poll::Ready(Ok(()))
        } else {
            match alarm.set(deadline, context.waker()) {
                Ok(()) => Poll::Pending,
                Err(e) => Poll::Ready(Err(e)),
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::{block_on, MOMENT};
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_parked_is_woken_by_its_descriptor_or_its_time() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let begun = Instant::now();
        let soon = || Instant::now() + 6 * MOMENT;
        assert!(!block_on(ready(reader.as_fd(), Interest::READ, soon())).unwrap());
        assert!(begun.elapsed() >= 6 * MOMENT);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(4 * MOMENT);
            writer.write_all(b"x").unwrap();
            writer
        });
        let (silent, _writer) = std::io::pipe().unwrap();
        let late = Instant::now() + Duration::from_secs(20);
        let woken = block_on(either([silent.as_fd(), reader.as_fd()], late)).unwrap();
        assert_eq!(woken, [false, true]);
        // A wait whose event has already happened, with a deadline in the past.
        assert!(block_on(ready(reader.as_fd(), Interest::READ, begun)).unwrap());
        drop(thread.join().unwrap());
    }

    #[test]
    fn a_thousand_times_are_kept_by_one_thread() {
        let begun = Instant::now();
        let all = |context: &mut Context<'_>, sleeps: &mut Vec<Pin<Box<dyn Future<Output = Result<()>>>>>| {
            sleeps.retain_mut(|sleep| sleep.as_mut().poll(context).is_pending());
            if sleeps.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        };
        let mut sleeps: Vec<Pin<Box<dyn Future<Output = Result<()>>>>> = Vec::new();
        for i in 0..1000 {
            sleeps.push(Box::pin(sleep(Duration::from_millis(20 + i / 10))));
        }
        block_on(std::future::poll_fn(|context| all(context, &mut sleeps)));
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(119) && took < Duration::from_secs(10), "{took:?}");
    }
}
