//! Edges and authn in processes of their own, which meet in one store, behind one address.

use anyhow::Result;

use super::{Balancer, Postern, Provider, Upstream, World, free_ports, moved_to, start_apart, with_store};

/// Two edges behind one address, what they ask and what they stand in front of.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) world: World,
    pub(crate) provider: Provider,
    pub(crate) upstream: Upstream,
    pub(crate) edges: Vec<Process>,
    pub(crate) authns: Vec<Process>,
    pub(crate) balancer: Balancer,
    text: Text,
}

/// A process, and where it is itself reached.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) postern: Postern,
    pub(crate) port: u16,
}

/// What every configuration says.
#[derive(Debug)]
struct Text {
    store: String,
    settings: String,
    routes: String,
}

impl Deployment {
    /// Two edges, each with further lines of its own in its configuration, and so many authns that they ask in turn, in front
    /// of an upstream. They keep sessions at `store`, a connection string; `routes` gives their routes.
    pub(crate) async fn start(
        store: &str,
        authns: usize,
        lines: [&str; 2],
        routes: impl FnOnce(&World, &Upstream) -> String,
    ) -> Result<Self> {
        let world = World::new()?;
        world.issue(("authn.pem", "authn.key"), &["localhost".to_owned(), format!("*.{}", World::DOMAIN)])?;
        let (provider, upstream) = (Provider::start(&world, None)?, Upstream::start().await?);
        let settings = format!(
            "{}certificate_authority_file: {}\nlog_level: info\n",
            provider.settings(),
            world.path("ca.pem").display()
        );
        let text = Text { store: store.to_owned(), settings, routes: routes(&world, &upstream) };
        let balancer = Balancer::start(world.port, []).await?;
        let (edges, running) = (Vec::new(), Vec::new());
        let mut deployment = Self { world, provider, upstream, edges, authns: running, balancer, text };
        for number in 0..authns {
            let port = free_ports(3)?;
            let config = deployment.config("authenticate", port, "").replace("/certificate.pem", "/authn.pem");
            let config = config.replace("/key.pem", "/authn.key");
            let postern = start_apart(&deployment.world, &format!("authn{number}"), &config, port + 1).await?;
            deployment.authns.push(Process { postern, port });
        }
        let asked: Vec<_> = deployment.authns.iter().map(|authn| authn.port).collect();
        for (number, (lines, authn)) in lines.iter().zip(asked.iter().cycle()).enumerate() {
            let port = free_ports(3)?;
            let config = deployment.edge(port, *authn, lines);
            let postern = start_apart(&deployment.world, &format!("edge{number}"), &config, port + 1).await?;
            deployment.edges.push(Process { postern, port });
        }
        deployment.balancer.lead_to(deployment.edges.iter().map(|edge| edge.port));
        Ok(deployment)
    }

    /// The configuration of an edge at `port` that asks whoever is at `authn`, with these lines.
    pub(crate) fn edge(&self, port: u16, authn: u16, lines: &str) -> String {
        let authn = format!("authenticate_internal_service_url: https://localhost:{authn}\n{lines}");
        self.config("proxy", port, &authn)
    }

    /// The configuration of one process: the same for all, but for what is given.
    fn config(&self, services: &str, port: u16, lines: &str) -> String {
        let settings = format!("{}services: {services}\n{lines}", self.text.settings);
        let text = self.world.config(&settings, &self.text.routes);
        moved_to(port, &self.world, &with_store(&self.world, &text, &self.text.store))
    }

    /// All that they have said.
    pub(crate) fn told(&self) -> String {
        self.edges.iter().chain(&self.authns).map(|process| process.postern.told()).collect()
    }
}
