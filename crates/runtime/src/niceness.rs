//! The scheduling priority of threads, as `nice` counts it: 0 as usual, up to 19 for those that give way. On Linux each thread has one of its own, which
//! threads that it starts inherit; on other systems nothing is done here.
//!
//! By the scheduler's weights (`sched(7)`, "The nice value"), a step of 5 leaves a thread about a third of the time of one above it while both want a processor.

/// Has the calling thread give way by so many steps more than it does. It can't take that back without privileges.
pub(crate) fn lower(steps: i32) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        setpriority_process(None, getpriority_process(None)?.saturating_add(steps).min(19))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = steps;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_alone_and_those_that_it_starts_with_it() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let lowered = std::thread::spawn(move || {
            lower(3).unwrap();
            (own(), std::thread::spawn(own).join().unwrap())
        });
        let expected = (before + 3).min(19);
        assert_eq!(lowered.join().unwrap(), (expected, expected));
        assert_eq!(own(), before);
    }
}
