//! Volumes of a description.

use super::text::Text;
use crate::pod::Volume;

pub(super) fn describe(t: &mut Text, volumes: &[Volume]) {
    if volumes.is_empty() {
        t.line(0, "Volumes:  <none>");
        return;
    }
    t.line(0, "Volumes:");
    for v in volumes {
        t.line(2, format!("{}:", v.name));
        source(t, v);
    }
}

fn source(t: &mut Text, v: &Volume) {
    if let Some(e) = &v.empty_dir {
        t.pair(4, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
        t.pair(4, "Medium", &*e.medium);
        t.pair(4, "SizeLimit", e.size_limit.as_ref().map_or_else(|| "<unset>".into(), ToString::to_string));
    } else if let Some(h) = &v.host_path {
        t.pair(4, "Type", "HostPath (bare host directory volume)");
        t.pair(4, "Path", &*h.path);
        t.pair(4, "HostPathType", &*h.kind);
    } else if let Some(c) = &v.config_map {
        t.pair(4, "Type", "ConfigMap (a volume populated by a ConfigMap)");
        t.pair(4, "Name", &*c.name);
        t.pair(4, "Optional", c.optional.to_string());
    } else if let Some(s) = &v.secret {
        t.pair(4, "Type", "Secret (a volume populated by a Secret)");
        t.pair(4, "SecretName", &*s.secret_name);
        t.pair(4, "Optional", s.optional.to_string());
    } else if v.downward_api.is_some() {
        t.pair(4, "Type", "DownwardAPI (a volume populated by information about the pod)");
    } else if let Some(p) = &v.projected {
        t.pair(4, "Type", "Projected (a volume that contains injected data from multiple sources)");
        for s in &p.sources {
            if let Some(k) = &s.config_map {
                t.pair(4, "ConfigMapName", &*k.name);
            }
            if let Some(k) = &s.secret {
                t.pair(4, "SecretName", &*k.name);
            }
            if s.downward_api.is_some() {
                t.pair(4, "DownwardAPI", "true");
            }
        }
    } else if let Some(i) = &v.image {
        t.pair(4, "Type", "Image (a container image or OCI artifact)");
        t.pair(4, "Reference", &*i.reference);
    } else {
        t.pair(4, "Type", v.other.keys().next().map_or("<unknown>", String::as_str));
    }
}
