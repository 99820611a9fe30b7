//! The volumes of a Pod. Of the types that drivers have taken over, the insides are left open.

use super::meta::{LABEL_SELECTOR, META, NAME};
use super::pod::{FIELD_REF, PULL_POLICY, RESOURCE_REF};
use super::storage::CLAIM_SPEC;
use super::{Field, Shape, TEXT_MAP};

const ITEMS: Shape = Shape::List(&Shape::Object(&[("key", Shape::Text), ("path", Shape::Text), ("mode", Shape::Mode)]));
const DOWNWARD_ITEMS: Shape = Shape::List(&Shape::Object(&[
    ("path", Shape::Text),
    ("fieldRef", FIELD_REF),
    ("resourceFieldRef", RESOURCE_REF),
    ("mode", Shape::Mode),
]));
const PROJECTED_KEYS: Shape = Shape::Object(&[("name", Shape::Text), ("items", ITEMS), ("optional", Shape::Bool)]);

pub const HOST_PATH: Shape = Shape::Object(&[("path", Shape::Text), ("type", Shape::Text)]);
pub const NFS: Shape = Shape::Object(&[("server", Shape::Text), ("path", Shape::Text), ("readOnly", Shape::Bool)]);

const CSI: Shape = Shape::Object(&[
    ("driver", Shape::Text),
    ("readOnly", Shape::Bool),
    ("fsType", Shape::Text),
    ("volumeAttributes", TEXT_MAP),
    ("nodePublishSecretRef", NAME),
]);
const EPHEMERAL: Shape = Shape::Object(&[("volumeClaimTemplate", Shape::Object(&[("metadata", META), ("spec", CLAIM_SPEC)]))]);

const TRUST_BUNDLE: Shape = Shape::Object(&[
    ("name", Shape::Text),
    ("signerName", Shape::Text),
    ("labelSelector", LABEL_SELECTOR),
    ("optional", Shape::Bool),
    ("path", Shape::Text),
]);
const POD_CERTIFICATE: Shape = Shape::Object(&[
    ("signerName", Shape::Text),
    ("keyType", Shape::Text),
    ("maxExpirationSeconds", Shape::Int32),
    ("credentialBundlePath", Shape::Text),
    ("keyPath", Shape::Text),
    ("certificateChainPath", Shape::Text),
    ("userAnnotations", TEXT_MAP),
]);

pub const VOLUMES: Shape = Shape::Retained(&Shape::Keyed(&["name"], &Shape::Object(VOLUME)));

const VOLUME: &[Field] = &[
    ("name", Shape::Text),
    ("emptyDir", Shape::Object(&[("medium", Shape::Text), ("sizeLimit", Shape::Amount)])),
    ("hostPath", HOST_PATH),
    ("configMap", Shape::Object(&[("name", Shape::Text), ("items", ITEMS), ("defaultMode", Shape::Mode), ("optional", Shape::Bool)])),
    ("secret", Shape::Object(&[("secretName", Shape::Text), ("items", ITEMS), ("defaultMode", Shape::Mode), ("optional", Shape::Bool)])),
    ("downwardAPI", Shape::Object(&[("items", DOWNWARD_ITEMS), ("defaultMode", Shape::Mode)])),
    (
        "projected",
        Shape::Object(&[
            (
                "sources",
                Shape::List(&Shape::Object(&[
                    ("configMap", PROJECTED_KEYS),
                    ("secret", PROJECTED_KEYS),
                    ("downwardAPI", Shape::Object(&[("items", DOWNWARD_ITEMS)])),
                    (
                        "serviceAccountToken",
                        Shape::Object(&[("audience", Shape::Text), ("expirationSeconds", Shape::Int64), ("path", Shape::Text)]),
                    ),
                    ("clusterTrustBundle", TRUST_BUNDLE),
                    ("podCertificate", POD_CERTIFICATE),
                ])),
            ),
            ("defaultMode", Shape::Mode),
        ]),
    ),
    ("image", Shape::Object(&[("reference", Shape::Text), ("pullPolicy", PULL_POLICY)])),
    ("persistentVolumeClaim", Shape::Object(&[("claimName", Shape::Text), ("readOnly", Shape::Bool)])),
    ("csi", CSI),
    ("ephemeral", EPHEMERAL),
    ("nfs", NFS),
    ("awsElasticBlockStore", Shape::Any),
    ("azureDisk", Shape::Any),
    ("azureFile", Shape::Any),
    ("cephfs", Shape::Any),
    ("cinder", Shape::Any),
    ("fc", Shape::Any),
    ("flexVolume", Shape::Any),
    ("flocker", Shape::Any),
    ("gcePersistentDisk", Shape::Any),
    ("gitRepo", Shape::Any),
    ("glusterfs", Shape::Any),
    ("iscsi", Shape::Any),
    ("photonPersistentDisk", Shape::Any),
    ("portworxVolume", Shape::Any),
    ("quobyte", Shape::Any),
    ("rbd", Shape::Any),
    ("scaleIO", Shape::Any),
    ("storageos", Shape::Any),
    ("vsphereVolume", Shape::Any),
];
