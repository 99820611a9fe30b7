//! Service of core/v1.

use super::meta::META;
use super::{CONDITIONS, Field, PROTOCOL, Shape, TEXT_MAP, TEXTS};

pub const SERVICE: &[Field] =
    &[("apiVersion", Shape::Text), ("kind", Shape::Text), ("metadata", META), ("spec", Shape::Object(SPEC)), ("status", STATUS)];

const POLICY: Shape = Shape::OneOf(&["Cluster", "Local"]);

const SPEC: &[Field] = &[
    ("type", Shape::OneOf(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"])),
    ("clusterIP", Shape::Text),
    ("clusterIPs", TEXTS),
    ("ipFamilies", Shape::List(&Shape::OneOf(&["IPv4", "IPv6"]))),
    ("ipFamilyPolicy", Shape::OneOf(&["PreferDualStack", "RequireDualStack", "SingleStack"])),
    ("ports", Shape::Keyed(&["port", "protocol"], &Shape::Object(PORT))),
    ("selector", Shape::Atomic(&TEXT_MAP)),
    ("externalIPs", TEXTS),
    ("sessionAffinity", Shape::OneOf(&["ClientIP", "None"])),
    ("sessionAffinityConfig", Shape::Object(&[("clientIP", Shape::Object(&[("timeoutSeconds", Shape::Int32)]))])),
    ("internalTrafficPolicy", POLICY),
    ("externalTrafficPolicy", POLICY),
    ("externalName", Shape::Text),
    ("publishNotReadyAddresses", Shape::Bool),
    ("loadBalancerIP", Shape::Text),
    ("loadBalancerSourceRanges", TEXTS),
    ("loadBalancerClass", Shape::Text),
    ("healthCheckNodePort", Shape::Port),
    ("trafficDistribution", Shape::OneOf(&["PreferClose", "PreferSameNode", "PreferSameZone"])),
    ("allocateLoadBalancerNodePorts", Shape::Bool),
];

const PORT: &[Field] = &[
    ("name", Shape::Text),
    ("protocol", PROTOCOL),
    ("port", Shape::Port),
    ("targetPort", Shape::PortRef),
    ("nodePort", Shape::Port),
    ("appProtocol", Shape::Text),
];

/// Whoever runs a load balancer of their own writes its addresses here.
const STATUS: Shape = Shape::Object(&[
    (
        "loadBalancer",
        Shape::Object(&[(
            "ingress",
            Shape::List(&Shape::Object(&[
                ("ip", Shape::Text),
                ("ipMode", Shape::OneOf(&["Proxy", "VIP"])),
                ("hostname", Shape::Text),
                ("ports", Shape::List(&Shape::Any)),
            ])),
        )]),
    ),
    ("conditions", CONDITIONS),
]);
