//! Owns the examples for CI systems: build base and head in one job, run the gate, show its
//! outcome where that system shows such things.

/// A GitHub Actions workflow.
pub const GITHUB_ACTIONS: &str = include_str!("../templates/github-actions.yml");

/// A GitLab CI job.
pub const GITLAB_CI: &str = include_str!("../templates/gitlab-ci.yml");
