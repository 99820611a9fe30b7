use super::{container, pod, told, told_of_container, told_of_spec};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// Fields of a container, and what is told of each alone.
fn table(rows: &[(&str, &str)]) {
    for (fields, want) in rows {
        let want: Vec<&str> = want.lines().collect();
        assert_eq!(told_of_container(fields), want, "{fields}");
    }
}

fn spec_table(rows: &[(&str, &str)]) {
    for (spec, want) in rows {
        let want: Vec<&str> = want.lines().collect();
        assert_eq!(told_of_spec(spec), want, "{spec}");
    }
}

#[test]
fn names_and_labels_keep_to_the_rules() {
    let meta = |m: &str| told(&container("").replace("{name: web}", m));
    let upper =
        format!("document 1: Pod default/Web: metadata.name: Invalid value: \"Web\": {}", crate::manifest::validate::names::SUBDOMAIN);
    assert_eq!(meta("{name: Web}"), [upper]);
    assert_eq!(meta("{}"), ["document 1: Pod default/(no name): metadata.name: Required value: name or generateName is required"]);
    assert!(meta("{name: w, namespace: A.b}")[0].contains("metadata.namespace: Invalid value: \"A.b\": a lowercase RFC 1123 label"));
    assert!(meta("{name: w, labels: {'a b': c}}")[0].contains("metadata.labels: Invalid value: \"a b\": name part must consist of"));
    assert!(
        meta("{name: w, labels: {a: 'b c'}}")[0]
            .contains("metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or")
    );
    assert!(
        meta("{name: w, annotations: {'a/b/c': x}}")[0].contains("metadata.annotations: Invalid value: \"a/b/c\": a qualified name must")
    );
    assert_eq!(meta("{name: w.x, labels: {a.b/c: ''}, annotations: {A.B/c: '{any}'}}"), [""; 0]);
}

#[test]
fn a_pod_has_containers_of_different_names_with_images() {
    assert_eq!(told(&pod("containers: []")), ["document 1: Pod default/web: spec.containers: Required value"]);
    assert_eq!(
        told(&pod("containers: [{name: a, image: x}, {name: a, image: x}]")),
        ["document 1: Pod default/web: spec.containers[1].name: Duplicate value: \"a\""]
    );
    assert_eq!(
        told(&pod("containers: [{name: a, image: x}]\ninitContainers: [{name: a, image: x}]")),
        ["document 1: Pod default/web: spec.initContainers[0].name: Duplicate value: \"a\""]
    );
    assert_eq!(
        told(&pod("containers: [{name: A, image: x}]")),
        [format!("document 1: Pod default/web: spec.containers[0].name: Invalid value: \"A\": {LABEL}")]
    );
    assert_eq!(
        told(&pod("containers: [{}]")),
        [
            "document 1: Pod default/web: spec.containers[0].name: Required value",
            "document 1: Pod default/web: spec.containers[0].image: Required value"
        ]
    );
    assert_eq!(
        told(&pod("containers: [{name: a, image: ' x'}]")),
        ["document 1: Pod default/web: spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace"]
    );
    assert_eq!(
        told(&pod("containers: [{name: a, image: Repo/X}]")),
        ["document 1: Pod default/web: spec.containers[0].image: Invalid value: \"Repo/X\": repository name must be lowercase"]
    );
}

#[test]
fn ports_of_containers() {
    table(&[
        ("ports: [{}]", "ports[0].containerPort: Required value"),
        ("ports: [{containerPort: 80, name: a}, {containerPort: 81, name: a}]", "ports[1].name: Duplicate value: \"a\""),
        ("ports: [{containerPort: 80, name: '80'}]", "ports[0].name: Invalid value: \"80\": must contain at least one letter (a-z)"),
        (
            "ports: [{containerPort: 80, name: a-name-far-too-long}]",
            "ports[0].name: Invalid value: \"a-name-far-too-long\": must be no more than 15 characters",
        ),
        (
            "ports: [{containerPort: 80, hostIP: x}]",
            "ports[0].hostIP: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        ("ports: [{containerPort: 80, hostPort: 1}, {containerPort: 81, hostPort: 1}]", "ports[1].hostPort: Duplicate value: \"TCP//1\""),
        ("ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]", ""),
    ]);
    assert_eq!(
        told(&pod("hostNetwork: true\ncontainers: [{name: c, image: x, ports: [{containerPort: 80, hostPort: 8080}]}]")),
        [
            "document 1: Pod default/web: spec.containers[0].ports[0].hostPort: Invalid value: 8080: must match `containerPort` when `hostNetwork` is true"
        ]
    );
}

#[test]
fn environments() {
    table(&[
        ("env: [{value: x}]", "env[0].name: Required value"),
        (
            "env: [{name: 'A=B'}]",
            "env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ),
        ("env: [{name: my.var-1}]", ""),
        (
            "env: [{name: A, valueFrom: {}}]",
            "env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        (
            "env: [{name: A, valueFrom: {configMapKeyRef: {name: m, key: k}, secretKeyRef: {name: m, key: k}}}]",
            "env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
        ),
        (
            "env: [{name: A, value: x, valueFrom: {configMapKeyRef: {name: m, key: k}}}]",
            "env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {}}}]",
            "env[0].valueFrom.secretKeyRef.name: Required value\nenv[0].valueFrom.secretKeyRef.key: Required value",
        ),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.nodename}}}]",
            "env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.nodename\": supported values: \"metadata.annotations['<key>']\", \"metadata.labels['<key>']\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
        ("env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}]", ""),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"spec.labels['app']\"}}}]",
            "env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.labels['app']\": does not support subscript",
        ),
        (
            "env: [{name: A, valueFrom: {resourceFieldRef: {resource: cpu}}}]",
            "env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"cpu\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
        ),
        (
            "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1Mi}}}]",
            "env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"1Mi\": only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        ("envFrom: [{}]", "envFrom[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"),
        (
            "envFrom: [{configMapRef: {name: a}, secretRef: {name: a}}]",
            "envFrom[0].secretRef: Forbidden: may not have more than one field specified at a time",
        ),
        ("envFrom: [{configMapRef: {}}]", "envFrom[0].configMapRef.name: Required value"),
    ]);
}

#[test]
fn probes_and_hooks() {
    table(&[
        ("livenessProbe: {periodSeconds: 3}", "livenessProbe: Required value: must specify a handler type"),
        (
            "livenessProbe: {exec: {command: [a]}, tcpSocket: {port: 1}}",
            "livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        ("livenessProbe: {exec: {}}", "livenessProbe.exec.command: Required value"),
        ("livenessProbe: {tcpSocket: {port: 1}, successThreshold: 2}", "livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ("startupProbe: {tcpSocket: {port: 1}, successThreshold: 2}", "startupProbe.successThreshold: Invalid value: 2: must be 1"),
        ("readinessProbe: {tcpSocket: {port: 1}, successThreshold: 2}", ""),
        (
            "readinessProbe: {tcpSocket: {port: 1}, periodSeconds: -1}",
            "readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "readinessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 1}",
            "readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ),
        (
            "livenessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 0}",
            "livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
        ),
        ("livenessProbe: {httpGet: {path: /}}", "livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        (
            "livenessProbe: {httpGet: {port: HTTP}}",
            "livenessProbe.httpGet.port: Invalid value: \"HTTP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)\nlivenessProbe.httpGet.port: Invalid value: \"HTTP\": must contain at least one letter (a-z)",
        ),
        ("livenessProbe: {grpc: {}}", "livenessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ("lifecycle: {preStop: {}}", "lifecycle.preStop: Required value: must specify a handler type"),
        (
            "lifecycle: {postStart: {exec: {command: [a]}, sleep: {seconds: 1}}}",
            "lifecycle.postStart.sleep: Forbidden: may not specify more than 1 handler type",
        ),
        (
            "lifecycle: {preStop: {sleep: {seconds: -1}}}",
            "lifecycle.preStop.sleep.seconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        ("lifecycle: {stopSignal: SIGTERM}", "lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"),
    ]);
    let init =
        |fields: &str| told(&pod(&format!("initContainers: [{{name: i, image: x, {fields}}}]\ncontainers: [{{name: c, image: x}}]")));
    let at = "document 1: Pod default/web: spec.initContainers[0]";
    assert_eq!(
        init("livenessProbe: {tcpSocket: {port: 1}}"),
        [format!("{at}.livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always")]
    );
    assert_eq!(
        init("lifecycle: {preStop: {sleep: {seconds: 1}}}"),
        [format!("{at}.lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always")]
    );
    assert_eq!(init("restartPolicy: Always, livenessProbe: {tcpSocket: {port: 1}}"), [""; 0]);
}

#[test]
fn restart_rules() {
    table(&[
        (
            "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]",
            "restartPolicy: Required value: must specify restartPolicy when restart rules are used",
        ),
        ("restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]", ""),
        (
            "restartPolicy: Never, restartPolicyRules: [{action: Stop, exitCodes: {operator: Is, values: [300]}}, {action: Restart}]",
            "restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"\nrestartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"\nrestartPolicyRules[0].exitCodes.values[0]: Invalid value: 300: must be between 0 and 255, inclusive\nrestartPolicyRules[1].exitCodes: Required value: must be specified",
        ),
    ]);
}

#[test]
fn requests_and_limits() {
    table(&[
        (
            "resources: {requests: {cpu: 1}, limits: {cpu: 500m}}",
            "resources.requests: Invalid value: \"1\": must be less than or equal to cpu limit of 500m",
        ),
        ("resources: {requests: {cpu: -1}}", "resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"),
        (
            "resources: {requests: {mem: 1}, limits: {mem: 1}}",
            "resources.limits[mem]: Invalid value: \"mem\": must be a standard resource for containers\nresources.requests[mem]: Invalid value: \"mem\": must be a standard resource for containers",
        ),
        (
            "resources: {limits: {memory: 1Gi, hugepages-2Mi: 3Mi}}",
            "resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi\nresources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
        ),
        ("resources: {limits: {hugepages-2Mi: 4Mi}}", "resources: Forbidden: HugePages require cpu or memory"),
        (
            "resources: {limits: {hugepages-2Mi: 4Mi, memory: 1Gi}, requests: {hugepages-2Mi: 2Mi}}",
            "resources.requests: Invalid value: \"2Mi\": must be equal to hugepages-2Mi limit of 4Mi",
        ),
        (
            "resources: {requests: {example.com/gpu: 1}}",
            "resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            "resources: {limits: {example.com/gpu: 500m}}",
            "resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer\nresources.requests[example.com/gpu]: Invalid value: \"500m\": must be an integer",
        ),
        ("resources: {limits: {cpu: 0.5, memory: 1e9, ephemeral-storage: 1Gi}}", ""),
        (
            "resources: {claims: [{name: gpu}]}",
            "resources.claims[0]: Not found: \"gpu\": must be one of the names in pod.spec.resourceClaims which is empty",
        ),
    ]);
    let pod_level = "resources: {requests: {cpu: 100m}, limits: {cpu: 200m}}\ncontainers: [{name: c, image: x, resources: {requests: {cpu: 150m}, limits: {cpu: 300m}}}]";
    assert_eq!(
        told(&pod(pod_level)),
        [
            "document 1: Pod default/web: spec.resources.requests[cpu]: Invalid value: \"100m\": must be greater than or equal to aggregate container requests",
            "document 1: Pod default/web: spec.containers[0].resources.limits[cpu]: Invalid value: \"300m\": must be less than or equal to pod limits of 200m",
        ]
    );
}

#[test]
fn volumes_have_one_source() {
    spec_table(&[
        ("volumes: [{emptyDir: {}}]", "volumes[0].name: Required value"),
        ("volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]", "volumes[1].name: Duplicate value: \"a\""),
        (
            "volumes: [{name: a, emptyDir: {}, hostPath: {path: /x}}]",
            "volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "volumes: [{name: a, emptyDir: {medium: Disk}}]",
            "volumes[0].emptyDir.medium: Unsupported value: \"Disk\": supported values: \"\", \"HugePages\", \"HugePages-<size>\", \"Memory\"",
        ),
        ("volumes: [{name: a, hostPath: {path: /a/../b}}]", "volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"),
        ("volumes: [{name: a, hostPath: {}}]", "volumes[0].hostPath.path: Required value"),
        (
            "volumes: [{name: a, hostPath: {path: /x, type: Dir}}]",
            "volumes[0].hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ),
        ("volumes: [{name: a, configMap: {}}]", "volumes[0].configMap.name: Required value"),
        ("volumes: [{name: a, secret: {}}]", "volumes[0].secret.secretName: Required value"),
        (
            "volumes: [{name: a, secret: {secretName: s, items: [{key: k, path: ../x}]}}]",
            "volumes[0].secret.items[0].path: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            "volumes: [{name: a, configMap: {name: s, items: [{path: /x}]}}]",
            "volumes[0].configMap.items[0].key: Required value\nvolumes[0].configMap.items[0].path: Invalid value: \"/x\": must be a relative path",
        ),
        (
            "volumes: [{name: a, downwardAPI: {items: [{path: x}]}}]",
            "volumes[0].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required",
        ),
        (
            "volumes: [{name: a, downwardAPI: {items: [{path: x, fieldRef: {fieldPath: status.podIP}}]}}]",
            "volumes[0].downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: \"status.podIP\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
        ),
        (
            "volumes: [{name: a, downwardAPI: {items: [{path: x, resourceFieldRef: {resource: limits.cpu}}]}}]",
            "volumes[0].downwardAPI.items[0].resourceFieldRef.containerName: Required value",
        ),
        (
            "volumes: [{name: a, projected: {sources: [{}]}}]",
            "volumes[0].projected.sources[0]: Required value: must specify a volume source",
        ),
        (
            "volumes: [{name: a, projected: {sources: [{configMap: {name: a, items: [{key: k, path: p}]}}, {secret: {name: a, items: [{key: k, path: p}]}}]}}]",
            "volumes[0].projected.sources[1]: Invalid value: \"p\": conflicting duplicate paths",
        ),
        (
            "volumes: [{name: a, persistentVolumeClaim: {claimName: c}}]",
            "volumes[0].persistentVolumeClaim: Forbidden: a node without a control plane binds no claims: use hostPath for data that must last, emptyDir for data that need not",
        ),
        ("volumes: [{name: a, nfs: {server: s, path: /x}}]", ""),
    ]);
}

#[test]
fn mounts_refer_to_volumes() {
    let mount = |m: &str| {
        let text = pod(&format!("volumes: [{{name: v, emptyDir: {{}}}}]\ncontainers: [{{name: c, image: x, volumeMounts: [{m}]}}]"));
        told(&text).join("\n").replace("document 1: Pod default/web: spec.containers[0].volumeMounts", "")
    };
    for (m, want) in [
        ("{name: v, mountPath: /a}", ""),
        ("{name: w, mountPath: /a}", "[0].name: Not found: \"w\""),
        ("{name: v}", "[0].mountPath: Required value"),
        ("{name: v, mountPath: a}", "[0].mountPath: Invalid value: \"a\": must be an absolute path"),
        ("{name: v, mountPath: /a}, {name: v, mountPath: /a}", "[1].mountPath: Invalid value: \"/a\": must be unique"),
        ("{name: v, mountPath: /a, subPath: ../x}", "[0].subPath: Invalid value: \"../x\": must not contain '..'"),
        ("{name: v, mountPath: /a, subPath: /x}", "[0].subPath: Invalid value: \"/x\": must be a relative path"),
        (
            "{name: v, mountPath: /a, subPath: x, subPathExpr: z}",
            "[0].subPathExpr: Invalid value: \"z\": subPathExpr and subPath are mutually exclusive",
        ),
        (
            "{name: v, mountPath: /a, mountPropagation: Bidirectional}",
            "[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
        ),
        (
            "{name: v, mountPath: /a, recursiveReadOnly: Enabled}",
            "[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
        ),
    ] {
        assert_eq!(mount(m), want);
    }
}

#[test]
fn security_contexts_do_not_contradict_themselves() {
    table(&[
        (
            "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
            "securityContext.allowPrivilegeEscalation: Invalid value: false: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        ("securityContext: {runAsUser: -1}", "securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"),
        (
            "securityContext: {seccompProfile: {}}",
            "securityContext.seccompProfile.type: Required value: type is required when the profile is set",
        ),
        (
            "securityContext: {seccompProfile: {type: Localhost}}",
            "securityContext.seccompProfile.localhostProfile: Required value: must be set when `type` is \"Localhost\"",
        ),
        (
            "securityContext: {seccompProfile: {type: Localhost, localhostProfile: /x}}",
            "securityContext.seccompProfile.localhostProfile: Invalid value: \"/x\": must be a relative path",
        ),
        (
            "securityContext: {seccompProfile: {type: RuntimeDefault, localhostProfile: x}}",
            "securityContext.seccompProfile.localhostProfile: Invalid value: \"x\": can only be set when `type` is \"Localhost\"",
        ),
        (
            "securityContext: {procMount: Unmasked}",
            "securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ),
    ]);
    spec_table(&[
        ("securityContext: {fsGroup: -1}", "securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive"),
        (
            "securityContext: {sysctls: [{name: net.x, value: '1'}, {name: net/x, value: '1'}]}",
            "securityContext.sysctls[1].name: Duplicate value: \"net/x\"",
        ),
        (
            "securityContext: {sysctls: [{name: 'net..x', value: '1'}]}",
            "securityContext.sysctls[0].name: Invalid value: \"net..x\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ),
        (
            "hostNetwork: true\nsecurityContext: {sysctls: [{name: net.ipv4.x, value: '1'}]}",
            "securityContext.sysctls[0].name: Invalid value: \"net.ipv4.x\": may not be specified when 'hostNetwork' is true",
        ),
        (
            "hostPID: true\nshareProcessNamespace: true",
            "shareProcessNamespace: Invalid value: \"true\": ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        ("hostUsers: false\nhostNetwork: true", "hostNetwork: Forbidden: when `hostUsers` is false"),
    ]);
}

#[test]
fn the_rest_of_a_spec() {
    spec_table(&[
        ("terminationGracePeriodSeconds: -1", "terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"),
        ("activeDeadlineSeconds: 0", "activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"),
        ("dnsPolicy: None", "dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
        (
            "dnsPolicy: None\ndnsConfig: {}",
            "dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
        (
            "dnsConfig: {nameservers: [x]}",
            "dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        ("dnsConfig: {searches: [., a_b.c., x], options: [{value: z}]}", "dnsConfig.options[0]: Required value: must not be empty"),
        (
            "hostAliases: [{ip: x, hostnames: [a]}]",
            "hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        ("hostname: A", &format!("hostname: Invalid value: \"A\": {LABEL}")),
        (
            "tolerations: [{key: a, operator: Is}]",
            "tolerations[0].operator: Unsupported value: \"Is\": supported values: \"Equal\", \"Exists\"",
        ),
        (
            "tolerations: [{operator: Exists, value: x}]",
            "tolerations[0].operator: Invalid value: \"Exists\": value must be empty when `operator` is 'Exists'",
        ),
        (
            "tolerations: [{key: a, tolerationSeconds: 5}]",
            "tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ),
        (
            "tolerations: [{key: a, effect: Never}]",
            "tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\"",
        ),
        ("imagePullSecrets: [{}]", "imagePullSecrets[0].name: Required value"),
        ("os: {name: windows}", "os.name: Unsupported value: \"windows\": supported values: \"linux\""),
        (
            "restartPolicy: Sometimes",
            "restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
    ]);
}
