//! What Tidemill promises on full disks, to other users and to Prometheus. Needs Python, mounts, `setpriv`, `unshare`,
//! `strace` and `promtool`.

mod no_room;
mod promtool;
mod sync_order;
mod take_over;
