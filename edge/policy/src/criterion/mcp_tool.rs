//! `mcp_tool`: the tool that a Model Context Protocol request calls.

use super::{Carrier, Dialect, Stand, Test};
use crate::document::{Mistake, Node};
use crate::matcher::StringMatcher;
use crate::{Facts, Mcp, Reason, Reasons, RuleResult};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct McpTool(StringMatcher);

impl Test for McpTool {
    fn parse(_: &str, data: &Node, _: Dialect) -> Result<Self, Vec<Mistake>> {
        StringMatcher::parse(data).map(Self)
    }

    fn evaluate(&self, facts: &Facts<'_>, _: Stand) -> RuleResult {
        let (value, reason) = match facts.mcp {
            Mcp::ToolCall(tool) if self.0.matches(tool) => (true, Reason::McpToolMatch),
            Mcp::ToolCall(_) => (false, Reason::McpToolNoMatch),
            Mcp::None | Mcp::Method(_) => (false, Reason::McpNotAToolCall),
        };
        RuleResult { value, reasons: Reasons::of(reason) }
    }

    fn words(&self) -> String {
        format!("a call of tool {}", self.0.words())
    }

    fn data(&self) -> String {
        self.0.words()
    }

    fn saw(&self, facts: &Facts<'_>) -> String {
        match facts.mcp {
            Mcp::None => "no MCP request".to_owned(),
            Mcp::Method(method) => format!("method {method}"),
            Mcp::ToolCall(tool) => format!("tool {tool}"),
        }
    }

    const CARRIER: Option<Carrier> = Some(Carrier::Mcp);
}

#[cfg(test)]
mod tests {
    use crate::Mcp;
    use crate::testing::World;

    #[test]
    fn only_a_tool_call_can_match() {
        World::default().mcp(Mcp::ToolCall("query")).assert("mcp_tool: query", true, "mcp-tool-match");
        World::default().mcp(Mcp::ToolCall("drop")).assert("mcp_tool: query", false, "mcp-tool-no-match");
        World::default().mcp(Mcp::Method("tools/list")).assert("mcp_tool: {not: x}", false, "mcp-not-a-tool-call");
        World::default().assert("mcp_tool: {}", false, "mcp-not-a-tool-call");
    }
}
