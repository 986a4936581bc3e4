//! What is asked of the gateways.

/// A kind of load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) exchange: Exchange,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    /// Requests in one measurement, over all connections.
    pub(crate) requests: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// A GET with a small answer.
    Small,
    /// A POST of 10 KiB with a small answer.
    Upload,
    /// A GET with an answer of 1 MiB.
    Big,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    H1,
    /// HTTP/2 without TLS, one stream at a time on each connection.
    H2,
}

pub(crate) const UPLOAD: usize = 10 * 1024;
pub(crate) const BIG: usize = 1024 * 1024;

impl Exchange {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Small => "/api/v1/small",
            Self::Upload => "/api/v1/upload",
            Self::Big => "/api/v1/big",
        }
    }

    fn requests(self, protocol: Protocol) -> usize {
        match (self, protocol) {
            (Self::Small, Protocol::H1) => 40_000,
            (Self::Small, Protocol::H2) | (Self::Upload, Protocol::H1) => 20_000,
            (Self::Upload, Protocol::H2) => 10_000,
            (Self::Big, _) => 1_000,
        }
    }
}

impl Scenario {
    /// Every exchange, by both protocols, over few and over many connections.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for exchange in [Exchange::Small, Exchange::Upload, Exchange::Big] {
            for protocol in [Protocol::H1, Protocol::H2] {
                for connections in [64, 1000] {
                    let requests = exchange.requests(protocol).max(connections);
                    all.push(Self { exchange, protocol, connections, requests });
                }
            }
        }
        all
    }

    /// The small exchanges over few connections, a tenth as long: the machine's moods change slower than these turns.
    pub(crate) fn short() -> Vec<Self> {
        let all = Self::all().into_iter();
        let few = all.filter(|scenario| scenario.connections == 64 && scenario.exchange != Exchange::Big);
        few.map(|scenario| Self { requests: scenario.requests / 10, ..scenario }).collect()
    }

    pub(crate) fn name(&self) -> String {
        let exchange = match self.exchange {
            Exchange::Small => "GET, small answer",
            Exchange::Upload => "POST of 10 KiB",
            Exchange::Big => "GET of 1 MiB",
        };
        let protocol = match self.protocol {
            Protocol::H1 => "HTTP/1.1",
            Protocol::H2 => "HTTP/2",
        };
        format!("{exchange}, {protocol}, {} connections", self.connections)
    }
}
