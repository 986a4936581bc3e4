//! The service manager's part: it is told which process serves, and may have the gateway start its own successor.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tokio::process::Command;
use tracing::{error, warn};

/// Tells the service manager at `socket` that this process serves, and is the main one from now on; see `sd_notify(3)`.
pub(crate) fn tell_ready(socket: &str) {
    let state = format!("READY=1\nMAINPID={}\n", std::process::id());
    if let Err(error) = send(socket, &state) {
        warn!(%error, "the service manager cannot be told that the gateway is up");
    }
}

fn send(socket: &str, state: &str) -> io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// Starts the process that is to take over, which finds the way here by itself.
pub(crate) fn start_successor(command: &[OsString]) {
    let Some((program, arguments)) = command.split_first() else { return };
    match Command::new(program).args(arguments).spawn() {
        Ok(mut child) => drop(tokio::spawn(async move {
            // If it takes over, this process ends first as a rule.
            if let Ok(status) = child.wait().await {
                warn!(%status, "the process that was started to take over has ended");
            }
        })),
        Err(error) => error!(%error, ?program, "the process that is to take over cannot be started"),
    }
}
