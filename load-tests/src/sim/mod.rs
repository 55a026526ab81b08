//! The scale model: what so many people need, computed of what one of each thing costs; and whether that computation is right,
//! held against three edges and a cluster of six servers on this machine.

mod authn;
mod check;
mod costs;
mod lab;
mod measure;
mod plan;

use std::path::PathBuf;

use anyhow::Result;

use crate::table::Table;
use costs::Costs;
use lab::Lab;
use plan::Demand;

/// What to compute, or to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    /// Shorter, and less sure
    #[arg(long)]
    quick: bool,
    /// The binary of Postern to be measured; built as a release if none is named
    #[arg(long, value_name = "FILE")]
    postern: Option<PathBuf>,
    #[command(flatten)]
    demand: Demand,
}

/// Where costs come from.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Compute of the costs that `--measure` wrote
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Measure the costs on this machine, write them, and compute of them
    #[arg(long, value_name = "FILE")]
    measure: Option<PathBuf>,
    /// Measure the costs at one edge, predict what another load at three will take, and see
    #[arg(long)]
    check: bool,
}

/// Computes, and measures before if that was asked for. Tells what it is doing on the standard error.
pub(crate) async fn run(options: &Options) -> Result<Table> {
    let lab = async || Lab::start(options.postern.clone(), options.quick).await;
    let costs = match &options.source {
        Source { costs: Some(file), .. } => Costs::read(file)?,
        Source { measure: Some(file), .. } => {
            let costs = measure::all(lab().await?).await?;
            costs.write(file)?;
            Costs::read(file)?
        }
        Source { .. } => return check::run(lab().await?).await,
    };
    options.demand.check(&costs)?;
    Ok(plan::table(&costs, &options.demand))
}
