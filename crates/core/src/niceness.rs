//! The scheduling priority of threads, as `nice` counts it: 0 as usual, up to 19 for those that give way. On Linux each thread has one of its own, which
//! threads that it starts inherit; on other systems nothing is done here.
//!
//! By the scheduler's weights (`sched(7)`, "The nice value"), a step of 5 gives a thread about a third of the time of one above it while both want a processor.

/// Has the calling thread give way by so many steps more than it does. It can't take that back without privileges.
///
/// # Errors
/// When the system does not let it.
pub fn lower(steps: i32) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::setpriority_process(None, current().saturating_add(steps).min(19))?;
    #[cfg(not(target_os = "linux"))]
    let _ = steps;
    Ok(())
}

/// How far the calling thread gives way.
#[must_use]
pub fn current() -> i32 {
    #[cfg(target_os = "linux")]
    return rustix::process::getpriority_process(None).unwrap_or(0);
    #[cfg(not(target_os = "linux"))]
    0
}

/// How far the process gives way where nothing was lowered: the priority of its first thread.
#[must_use]
pub fn of_process() -> i32 {
    #[cfg(target_os = "linux")]
    return rustix::process::getpriority_process(Some(rustix::process::getpid())).unwrap_or(0);
    #[cfg(not(target_os = "linux"))]
    0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_alone_and_those_that_it_starts_with_it() {
        let lowered = std::thread::spawn(|| {
            lower(3).expect("anybody may");
            (current(), std::thread::spawn(current).join().expect("it ends"))
        });
        let expected = (of_process() + 3).min(19);
        assert_eq!(lowered.join().expect("it ends"), (expected, expected));
        assert_eq!(current(), of_process());
    }
}
