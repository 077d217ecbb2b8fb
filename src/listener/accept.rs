//! The accept thread: takes connections, refuses those beyond the caps, and hands each to the thread with the least
//! to do.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{SocketFlags, acceptfrom_with},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::LocalSet,
};

use super::{
    Counters, ListenError, Service, Settings,
    crowd::Caps,
    drain::{self, Handle, Member, Order},
    serve::{self, ServingThread},
    timers::{Load, Tuning},
    tls::Reloader,
};
use crate::policy::network;

/// Sockets that listen, and what is needed to serve them.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<(TcpListener, SocketAddr)>,
    addresses: Vec<SocketAddr>,
    settings: Settings,
    tuning: Tuning,
    reloader: Option<Arc<Reloader>>,
}

/// Listens at all addresses and loads the certificate. From now on clients can connect; they wait until
/// [`Bound::start`].
///
/// # Errors
/// When an address cannot be listened at, or the certificate cannot be used.
pub fn bind(settings: &Settings) -> Result<Bound, ListenError> {
    if settings.addresses.is_empty() {
        return Err(ListenError::NoAddress);
    }
    let reloader = settings.tls.as_ref().map(Reloader::new).transpose()?;
    let any_v4 = settings.addresses.iter().any(SocketAddr::is_ipv4);
    let unacknowledged = settings.max_unacknowledged.map(|most| most.max(settings.timeouts.write));
    let sockets = settings
        .addresses
        .iter()
        .map(|&address| {
            let listen = || -> io::Result<_> {
                let socket = listen_at(address, any_v4, unacknowledged)?;
                let address = socket.local_addr()?;
                Ok((socket, address))
            };
            listen().map_err(|source| ListenError::Bind { address, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let addresses = sockets.iter().map(|(_, address)| *address).collect();
    Ok(Bound { sockets, addresses, settings: settings.clone(), tuning: Tuning::default(), reloader })
}

/// What the system may keep of connections that nobody accepted yet; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// What the system takes of an answer beyond what the client's window has room for. Left to itself it takes megabytes
/// and asks for more when a third of them has left: to a client that reads steadily but slowly, that may take longer
/// than the time for writing without progress, and it would be cut.
const UNSENT: u32 = 128 * 1024;

fn listen_at(address: SocketAddr, any_v4: bool, unacknowledged: Option<Duration>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] takes IPv4 too, unless an IPv4 address is listened at beside it: the two would collide.
        socket.set_only_v6(any_v4)?;
    }
    // Linux hands these on to every accepted socket, so that accepting one costs no further system call.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    // For answers that may take any time (a stream, an upgraded connection), where no timer of ours runs.
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(unacknowledged)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Lets the process have as many descriptors as its hard limit allows, and gives that number. Services start with 1024
/// for the sake of `select(2)`, which nothing here uses; 10,000 connections need more.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, the limit in force stays, and accept backs off when it is reached.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current
}

impl Bound {
    /// Where it listens, in the order of the settings; port 0 has become a port.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What reloads the certificate; absent without TLS.
    pub fn reloader(&self) -> Option<Arc<Reloader>> {
        self.reloader.clone()
    }

    /// With other than the usual fineness of time.
    #[must_use]
    pub fn with_tuning(self, tuning: Tuning) -> Self {
        Self { tuning, ..self }
    }

    /// Starts the accept thread and the serving threads (0 = one per core). `factory` is called once on each serving
    /// thread, with the thread's number, inside its runtime: it may spawn local tasks.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made. What was started ends again.
    pub fn start<S, F>(self, threads: usize, factory: F, counters: Arc<Counters>) -> Result<Listener, ListenError>
    where
        S: Service,
        F: Fn(usize) -> Rc<S> + Send + Sync + 'static,
    {
        let Self { sockets, addresses, settings, tuning, reloader } = self;
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
            threads => threads,
        };
        let gate = Arc::new(Gate::new(&settings, Arc::clone(&counters)));
        let (handle, mut members) = drain::party(threads + 1);
        let acceptor_member = members.next();
        let factory = Arc::new(factory);
        let mut lanes = Vec::with_capacity(threads);
        for (index, member) in members.enumerate() {
            let (sender, incoming) = mpsc::unbounded_channel();
            let load = Arc::<Load>::default();
            lanes.push(Lane { sender, load: Arc::clone(&load) });
            let thread = ServingThread {
                index,
                incoming,
                member,
                load,
                settings: settings.clone(),
                tuning,
                reloader: reloader.clone(),
                gate: Arc::clone(&gate),
                counters: Arc::clone(&counters),
                caps: Caps::new(&settings, threads),
            };
            let factory = Arc::clone(&factory);
            spawn(format!("serve-{index}"), move |runtime| serve::run(&runtime, thread, &*factory))?;
        }
        if let Some(member) = acceptor_member {
            let acceptor = Acceptor {
                gate,
                lanes,
                counters,
                trusted: settings.proxy_protocol.then_some(settings.trusted_proxies),
            };
            spawn("accept".to_owned(), move |runtime| run(&runtime, acceptor, sockets, member))?;
        }
        Ok(Listener { addresses, handle, reloader })
    }
}

fn spawn(name: String, body: impl FnOnce(Runtime) + Send + 'static) -> Result<(), ListenError> {
    let start = || -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(name.clone()).spawn(move || body(runtime))?;
        Ok(())
    };
    start().map_err(|source| ListenError::Thread { name: name.clone(), source })
}

/// A listener that serves. When it and all its handles are dropped, what is open is cut.
#[derive(Debug)]
pub struct Listener {
    addresses: Vec<SocketAddr>,
    handle: Handle,
    reloader: Option<Arc<Reloader>>,
}

impl Listener {
    /// Where it listens, in the order of the settings.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What stops it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What reloads the certificate; absent without TLS.
    pub fn reloader(&self) -> Option<Arc<Reloader>> {
        self.reloader.clone()
    }
}

/// A connection on its way to a serving thread.
pub(super) struct Accepted {
    pub(super) socket: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) local: SocketAddr,
    pub(super) ticket: Ticket,
}

/// The way to a serving thread.
struct Lane {
    sender: mpsc::UnboundedSender<Accepted>,
    load: Arc<Load>,
}

/// How many connections there may be.
pub(super) struct Gate {
    max: u64,
    max_per_ip: usize,
    exempt: network::Networks,
    /// Whether the other end of the socket is a proxy, so that the client's address comes later.
    proxied: bool,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
    counters: Arc<Counters>,
}

/// A connection's place, given back when dropped.
pub(super) struct Ticket(Arc<Gate>);

/// An address's place among the connections from it, given back when dropped.
pub(super) struct AddressTicket(Arc<Gate>, IpAddr);

impl Gate {
    fn new(settings: &Settings, counters: Arc<Counters>) -> Self {
        Self {
            max: settings.max_connections as u64,
            max_per_ip: settings.max_connections_per_ip,
            exempt: settings.trusted_proxies.clone(),
            proxied: settings.proxy_protocol,
            per_ip: Mutex::default(),
            counters,
        }
    }

    /// Only the accept thread takes places, so that looking and taking need not be one step.
    fn admit(self: &Arc<Self>) -> Option<Ticket> {
        if self.counters.connections.get() >= self.max {
            return None;
        }
        self.counters.connections.add();
        Some(Ticket(Arc::clone(self)))
    }

    /// A place for one more connection from `address`: `Err` when it has too many, `None` when nobody counts.
    ///
    /// Trusted proxies are not counted: all clients behind one share its address.
    pub(super) fn admit_address(self: &Arc<Self>, address: IpAddr) -> Result<Option<AddressTicket>, ()> {
        if self.max_per_ip == 0 || self.exempt.contains(address) {
            return Ok(None);
        }
        let counted = counted_address(address);
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let open = per_ip.entry(counted).or_default();
        if *open >= self.max_per_ip {
            return Err(());
        }
        *open += 1;
        Ok(Some(AddressTicket(Arc::clone(self), counted)))
    }

    /// Whether the address of the socket's other end is the one to count.
    pub(super) fn counts_at_accept(&self) -> bool {
        !self.proxied
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.counters.connections.sub();
    }
}

impl Drop for AddressTicket {
    fn drop(&mut self) {
        let mut per_ip = self.0.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = per_ip.get_mut(&self.1) {
            *open -= 1;
            if *open == 0 {
                per_ip.remove(&self.1);
            }
        }
    }
}

/// An IPv6 client owns a /64 at least, so its addresses are one.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

struct Acceptor {
    gate: Arc<Gate>,
    lanes: Vec<Lane>,
    counters: Arc<Counters>,
    /// With PROXY headers: from whom they are taken.
    trusted: Option<network::Networks>,
}

/// How long to wait when descriptors or memory have run out: doubled from the first to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Accepted at one go, before other listeners get their turn.
const BATCH: usize = 64;

fn run(runtime: &Runtime, acceptor: Acceptor, sockets: Vec<(TcpListener, SocketAddr)>, mut member: Member) {
    let acceptor = Rc::new(acceptor);
    LocalSet::new().block_on(runtime, async move {
        let mut tasks = Vec::with_capacity(sockets.len());
        for (socket, local) in sockets {
            #[expect(deprecated, reason = "what replaces it is unsafe; a TcpListener keeps its descriptor to the end")]
            let registered = AsyncFd::with_interest(socket, Interest::READABLE);
            // Fails only when the runtime's epoll is out of memory or descriptors.
            match registered {
                Ok(socket) => {
                    let (acceptor, order) = (Rc::clone(&acceptor), member.order.clone());
                    tasks.push(tokio::task::spawn_local(async move {
                        let mut order = order;
                        tokio::select! {
                            () = acceptor.accept(&socket, local) => {}
                            _ = order.wait_for(|order| *order > Order::Serve) => {}
                        }
                        // Whoever has connected before the drain began is still served; closing would reset them.
                        acceptor.sweep(&socket, local);
                    }));
                }
                Err(error) => tracing::error!(%local, %error, "cannot wait for connections"),
            }
        }
        member.order_after(Order::Serve).await;
        for task in tasks {
            // A task that panicked accepts nothing more either.
            let _ = task.await;
        }
    });
}

impl Acceptor {
    async fn accept(&self, socket: &AsyncFd<TcpListener>, local: SocketAddr) {
        let mut back_off = BACK_OFF.0;
        loop {
            let Ok(mut ready) = socket.readable().await else { return };
            match self.batch(socket.get_ref(), local) {
                Batch::More => tokio::task::yield_now().await,
                Batch::Emptied => {
                    ready.clear_ready();
                    back_off = BACK_OFF.0;
                }
                Batch::Exhausted { some } => {
                    if some {
                        back_off = BACK_OFF.0;
                    }
                    // The socket stays ready: without a pause this would be a busy loop.
                    tokio::time::sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    fn sweep(&self, socket: &AsyncFd<TcpListener>, local: SocketAddr) {
        while let Batch::More = self.batch(socket.get_ref(), local) {}
    }

    fn batch(&self, socket: &TcpListener, local: SocketAddr) -> Batch {
        let mut some = false;
        for _ in 0..BATCH {
            match acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((accepted, peer)) => {
                    some = true;
                    if let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                        self.hand_over(accepted.into(), peer, local);
                    }
                }
                Err(Errno::AGAIN) => return Batch::Emptied,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    self.counters.accept_errors.add();
                    tracing::warn!(%local, %error, "cannot accept connections for want of resources; trying again");
                    return Batch::Exhausted { some };
                }
                // Errors of the one connection that was about to be accepted, among them what the network said of it.
                Err(_) => self.counters.accept_errors.add(),
            }
        }
        Batch::More
    }

    fn hand_over(&self, socket: TcpStream, peer: SocketAddr, local: SocketAddr) {
        self.counters.accepted.add();
        let peer = network::canonical(peer.ip());
        if self.trusted.as_ref().is_some_and(|trusted| !trusted.contains(peer)) {
            self.counters.proxy_header_refused.add();
            return;
        }
        let Some(ticket) = self.gate.admit() else {
            self.counters.refused.add();
            return;
        };
        let local = if local.ip().is_unspecified() { socket.local_addr().unwrap_or(local) } else { local };
        // A thread that has ended, in a shutdown or by a panic, would look as if it had nothing to do.
        let lanes = self.lanes.iter().filter(|lane| !lane.sender.is_closed());
        let Some(lane) = lanes.min_by_key(|lane| lane.load.weight()) else { return };
        lane.load.connection_handed_over();
        // Fails when the thread ends at this moment: the socket is closed by being dropped.
        let _ = lane.sender.send(Accepted { socket, peer, local, ticket });
    }
}

enum Batch {
    /// There may be more.
    More,
    /// There is none now.
    Emptied,
    /// Descriptors or memory have run out, after some or none.
    Exhausted { some: bool },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an accepted socket has of the option.
    fn accepted(most: Option<Duration>) -> Option<Duration> {
        let listening = listen_at(([127, 0, 0, 1], 0).into(), false, most).unwrap();
        let _client = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        let accepted = loop {
            match listening.accept() {
                Ok((accepted, _)) => break accepted,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        socket2::SockRef::from(&accepted).tcp_user_timeout().unwrap()
    }

    #[test]
    fn what_is_accepted_is_given_up_when_it_acknowledges_nothing() {
        let most = Duration::from_secs(30);
        assert_eq!([accepted(Some(most)), accepted(None)], [Some(most), None]);
    }
}
