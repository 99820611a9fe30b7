//! The test harness of Longshore, and the laboratory behind `make run`.
//!
//! A test here runs the real daemon against real runtimes and real kernels, on hosts that exist only
//! in network namespaces or virtual machines. Everything a test makes carries the name of its
//! [`lab::Home`], so that whatever a killed run left behind is found and removed by the next one.

pub mod demo;
pub mod lab;
