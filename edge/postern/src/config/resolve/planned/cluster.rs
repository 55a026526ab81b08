//! Several stores that agree, and recordings (01 §1.9).

use super::address;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::keys::{BLOB_STORAGE, CLUSTER_NODE};
use crate::config::value::{Spanned, quoted};
use crate::config::{At, Code};

/// `databroker_cluster_*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// `databroker_cluster_node_id`.
    pub own: Option<String>,
    /// `databroker_cluster_leader_id`.
    pub leader: Option<String>,
    /// `databroker_cluster_nodes`.
    pub nodes: Vec<ClusterNode>,
    /// `databroker_raft_bind_address`.
    pub bind: Option<String>,
}

/// One of the processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// `id`.
    pub id: String,
    /// `grpc_address`.
    pub grpc: String,
    /// `raft_address`.
    pub raft: Option<String>,
}

/// `blob_storage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobStorage {
    /// `bucket_uri`.
    pub bucket: String,
    /// `managed_prefix`.
    pub prefix: String,
}

pub(super) fn resolve(cx: &mut Context<'_>, settings: &Block<'_>) -> Cluster {
    let blocks = settings.list(cx, "databroker_cluster_nodes", &CLUSTER_NODE);
    let nodes: Vec<_> = blocks.iter().filter_map(|block| node(cx, block)).collect();
    let own = settings.filled(cx, "databroker_cluster_node_id");
    let leader = settings.filled(cx, "databroker_cluster_leader_id");
    for id in own.iter().chain(&leader) {
        if nodes.iter().all(|node| node.id != id.value) {
            let what = format!("{} is not among `databroker_cluster_nodes`", quoted(&id.value));
            let ids: Vec<_> = nodes.iter().map(|node| format!("`{}`", node.id)).collect();
            let hint = if ids.is_empty() {
                "add the node to the list".to_owned()
            } else {
                format!("write one of {}", ids.join(", "))
            };
            cx.fatal(Code::BadStorage, &id.at, what, hint);
        }
    }
    let text = |id: Option<Spanned<String>>| id.map(|id| id.value);
    Cluster { own: text(own), leader: text(leader), nodes, bind: address(cx, settings, "databroker_raft_bind_address") }
}

fn node(cx: &mut Context<'_>, block: &Block<'_>) -> Option<ClusterNode> {
    let id = block.required(cx, "id", "a node has no `id`", "add `id`");
    let grpc = block.required(cx, "grpc_address", "a node has no `grpc_address`", "add `grpc_address`");
    let raft = address(cx, block, "raft_address");
    let grpc = grpc?;
    let bare =
        grpc.value.strip_prefix("http://").or_else(|| grpc.value.strip_prefix("https://")).unwrap_or(&grpc.value);
    if !super::super::routes::is_authority(bare.trim_end_matches('/')) {
        refuse(cx, &grpc.at, &grpc.value);
    }
    Some(ClusterNode { id: id?.value, grpc: grpc.value, raft })
}

fn refuse(cx: &mut Context<'_>, at: &At, written: &str) {
    let what = format!("{} is no address of a node", quoted(written));
    cx.fatal(Code::BadAddress, at, what, "write `host:port`, or `https://host:port`");
}

pub(super) fn blob_storage(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<BlobStorage> {
    let block = settings.inner(cx, "blob_storage", &BLOB_STORAGE)?;
    let bucket = block.filled(cx, "bucket_uri")?;
    if !bucket.value.contains("://") {
        let what = format!("{} is no bucket", quoted(&bucket.value));
        cx.fatal(Code::BadUrl, &bucket.at, what, "write `s3://BUCKET`, `gs://BUCKET` or `file:///FOLDER`");
    }
    Some(BlobStorage { bucket: bucket.value, prefix: block.text(cx, "managed_prefix").unwrap_or_default() })
}
