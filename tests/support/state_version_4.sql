BEGIN TRANSACTION;
CREATE TABLE address (          -- addresses on bridge networks, given out at start
    network TEXT NOT NULL,
    address TEXT NOT NULL,
    container_id TEXT NOT NULL,
    PRIMARY KEY (network, address)
) STRICT;
CREATE TABLE blob_place (       -- where a blob was seen, for mounting it across repositories
    digest TEXT NOT NULL,
    domain TEXT NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (digest, domain, path)
) STRICT;
CREATE TABLE container (
    id TEXT PRIMARY KEY,        -- 64 hexadecimal digits
    name TEXT NOT NULL UNIQUE,
    image_id TEXT NOT NULL,     -- kept while the container is there
    created_ns INTEGER NOT NULL,
    config TEXT NOT NULL        -- JSON of ContainerConfig
) STRICT;
INSERT INTO "container" VALUES('0000000000000000000000000000000000000000000000000000000000000001','plain','sha256:1111111111111111111111111111111111111111111111111111111111111111',1000,'{"image": "busybox", "command": ["true"], "entrypoint": [], "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "working_directory": "/", "user": "", "groups": [], "hostname": "", "hosts": [], "terminal": false, "open_stdin": false, "stdin_once": false, "mounts": [], "ports": [], "exposed_ports": [], "network": "none", "labels": {}, "memory_bytes": null, "memory_swap_bytes": null, "cpus": null, "cpu_shares": null, "cpuset_cpus": "", "pids_limit": null, "shm_size_bytes": 67108864, "ulimits": [], "oom_score_adj": 0, "sysctls": {}, "read_only": false, "cap_add": [], "cap_drop": [], "privileged": false, "no_new_privileges": false, "seccomp": "default", "devices": [], "stop_signal": "TERM", "stop_timeout_seconds": null, "runtime": "embedded", "auto_remove": false, "log_driver": "json-file", "log_options": {}}');
INSERT INTO "container" VALUES('0000000000000000000000000000000000000000000000000000000000000002','image','sha256:1111111111111111111111111111111111111111111111111111111111111111',1001,'{"image": "demo", "command": ["serve"], "entrypoint": ["/entry"], "env": ["PATH=/bin", "LANG=C.UTF-8"], "working_directory": "/srv", "user": "app", "groups": [], "hostname": "", "hosts": [], "terminal": false, "open_stdin": false, "stdin_once": false, "mounts": [{"kind": "volume", "source": "0101010101010101010101010101010101010101010101010101010101010101", "target": "/kept", "read_only": false, "propagation": "rprivate", "create_source": false, "no_copy": false, "options": []}, {"kind": "volume", "source": "0202020202020202020202020202020202020202020202020202020202020202", "target": "/var/lib/data", "read_only": false, "propagation": "rprivate", "create_source": false, "no_copy": false, "options": []}], "ports": [], "exposed_ports": ["8888/tcp"], "network": "bridge", "labels": {"from": "image"}, "memory_bytes": null, "memory_swap_bytes": null, "cpus": null, "cpu_shares": null, "cpuset_cpus": "", "pids_limit": null, "shm_size_bytes": 67108864, "ulimits": [], "oom_score_adj": 0, "sysctls": {}, "read_only": false, "cap_add": [], "cap_drop": [], "privileged": false, "no_new_privileges": false, "seccomp": "default", "devices": [], "stop_signal": "SIGQUIT", "stop_timeout_seconds": null, "runtime": "embedded", "auto_remove": false, "log_driver": "json-file", "log_options": {}}');
INSERT INTO "container" VALUES('0000000000000000000000000000000000000000000000000000000000000003','everything','sha256:1111111111111111111111111111111111111111111111111111111111111111',1002,'{"image": "busybox", "command": ["a", "b"], "entrypoint": ["/e"], "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "B="], "working_directory": "/w", "user": "1:2", "groups": ["5", "video"], "hostname": "box", "hosts": ["10.0.0.1\tdb", "host-gateway\thost", "fe80::1\tsix"], "terminal": true, "open_stdin": true, "stdin_once": true, "mounts": [{"kind": "bind", "source": "/srv/data", "target": "/data", "read_only": true, "propagation": "rprivate", "create_source": true, "no_copy": false, "options": []}, {"kind": "bind", "source": "/srv/shared", "target": "/shared", "read_only": false, "propagation": "rslave", "create_source": true, "no_copy": false, "options": []}, {"kind": "volume", "source": "cache", "target": "/cache", "read_only": false, "propagation": "rprivate", "create_source": false, "no_copy": false, "options": []}, {"kind": "volume", "source": "model", "target": "/model", "read_only": true, "propagation": "rprivate", "create_source": false, "no_copy": true, "options": []}, {"kind": "volume", "source": "0303030303030303030303030303030303030303030303030303030303030303", "target": "/anonymous", "read_only": false, "propagation": "rprivate", "create_source": false, "no_copy": false, "options": []}, {"kind": "bind", "source": "/etc", "target": "/host", "read_only": true, "propagation": "rslave", "create_source": false, "no_copy": false, "options": []}, {"kind": "volume", "source": "named", "target": "/named", "read_only": false, "propagation": "rprivate", "create_source": false, "no_copy": true, "options": []}, {"kind": "volume", "source": "0404040404040404040404040404040404040404040404040404040404040404", "target": "/unnamed", "read_only": true, "propagation": "rprivate", "create_source": false, "no_copy": false, "options": []}, {"kind": "tmpfs", "source": "", "target": "/t", "read_only": false, "propagation": "rprivate", "create_source": false, "no_copy": false, "options": ["nosuid", "nodev", "size=1048576", "mode=700"]}, {"kind": "tmpfs", "source": "", "target": "/run", "read_only": false, "propagation": "rprivate", "create_source": false, "no_copy": false, "options": ["noexec", "nosuid", "nodev", "size=2m"]}, {"kind": "tmpfs", "source": "", "target": "/scratch", "read_only": true, "propagation": "rprivate", "create_source": false, "no_copy": false, "options": ["nosuid", "nodev", "exec", "ro"]}], "ports": [{"host_ip": "127.0.0.1", "host_port": 8080, "container_port": 80, "protocol": "tcp"}, {"host_ip": "127.0.0.2", "host_port": 0, "container_port": 53, "protocol": "udp"}, {"host_ip": "0.0.0.0", "host_port": 81, "container_port": 80, "protocol": "tcp"}, {"host_ip": "::1", "host_port": 82, "container_port": 82, "protocol": "tcp"}], "exposed_ports": ["80/tcp", "53/udp", "82/tcp", "6006/tcp"], "network": "bridge", "labels": {"a": "b"}, "memory_bytes": 67108864, "memory_swap_bytes": 134217728, "cpus": 0.5, "cpu_shares": 512, "cpuset_cpus": "0", "pids_limit": 10, "shm_size_bytes": 1048576, "ulimits": [["nofile", 10, 20], ["core", -1, -1]], "oom_score_adj": 7, "sysctls": {"net.ipv4.ip_forward": "1"}, "read_only": true, "cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"], "privileged": false, "no_new_privileges": true, "seccomp": "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}", "devices": [{"source": "/dev/null", "target": "/dev/nil", "permissions": "r"}], "stop_signal": "INT", "stop_timeout_seconds": 3.0, "runtime": "crun", "auto_remove": true, "log_driver": "json-file", "log_options": {"max-size": "1m"}}');
INSERT INTO "container" VALUES('0000000000000000000000000000000000000000000000000000000000000004','privileged','sha256:1111111111111111111111111111111111111111111111111111111111111111',1003,'{"image": "busybox", "command": ["sh", "-c", "exit"], "entrypoint": [], "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "working_directory": "/", "user": "", "groups": [], "hostname": "", "hosts": [], "terminal": false, "open_stdin": false, "stdin_once": false, "mounts": [], "ports": [], "exposed_ports": [], "network": "host", "labels": {}, "memory_bytes": 1073741824, "memory_swap_bytes": -1, "cpus": null, "cpu_shares": null, "cpuset_cpus": "", "pids_limit": null, "shm_size_bytes": 67108864, "ulimits": [], "oom_score_adj": 0, "sysctls": {}, "read_only": false, "cap_add": [], "cap_drop": [], "privileged": true, "no_new_privileges": false, "seccomp": "unconfined", "devices": [], "stop_signal": "TERM", "stop_timeout_seconds": -1.0, "runtime": "embedded", "auto_remove": false, "log_driver": "none", "log_options": {}}');
INSERT INTO "container" VALUES('0000000000000000000000000000000000000000000000000000000000000005','joined','sha256:1111111111111111111111111111111111111111111111111111111111111111',1004,'{"image": "busybox", "command": ["sh"], "entrypoint": [], "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "working_directory": "/", "user": "", "groups": [], "hostname": "", "hosts": [], "terminal": false, "open_stdin": false, "stdin_once": false, "mounts": [], "ports": [], "exposed_ports": [], "network": "container:abababababababababababababababababababababababababababababababab", "labels": {}, "memory_bytes": null, "memory_swap_bytes": null, "cpus": null, "cpu_shares": null, "cpuset_cpus": "", "pids_limit": null, "shm_size_bytes": 67108864, "ulimits": [], "oom_score_adj": 0, "sysctls": {}, "read_only": false, "cap_add": [], "cap_drop": [], "privileged": false, "no_new_privileges": false, "seccomp": "default", "devices": [], "stop_signal": "TERM", "stop_timeout_seconds": null, "runtime": "embedded", "auto_remove": false, "log_driver": "json-file", "log_options": {}}');
CREATE TABLE container_volume (
    container_id TEXT NOT NULL REFERENCES container(id) ON DELETE CASCADE,
    volume TEXT NOT NULL,
    PRIMARY KEY (container_id, volume)
) STRICT;
INSERT INTO "container_volume" VALUES('0000000000000000000000000000000000000000000000000000000000000002','0101010101010101010101010101010101010101010101010101010101010101');
INSERT INTO "container_volume" VALUES('0000000000000000000000000000000000000000000000000000000000000002','0202020202020202020202020202020202020202020202020202020202020202');
INSERT INTO "container_volume" VALUES('0000000000000000000000000000000000000000000000000000000000000003','cache');
INSERT INTO "container_volume" VALUES('0000000000000000000000000000000000000000000000000000000000000003','model');
INSERT INTO "container_volume" VALUES('0000000000000000000000000000000000000000000000000000000000000003','0303030303030303030303030303030303030303030303030303030303030303');
INSERT INTO "container_volume" VALUES('0000000000000000000000000000000000000000000000000000000000000003','named');
INSERT INTO "container_volume" VALUES('0000000000000000000000000000000000000000000000000000000000000003','0404040404040404040404040404040404040404040404040404040404040404');
CREATE TABLE image (            -- one row per image config, the id is the config blob's digest
    id TEXT PRIMARY KEY,        -- "sha256:..."
    manifest_digest TEXT NOT NULL,
    manifest_type TEXT NOT NULL, -- its media type
    created_ns INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, -- contents of all layers
    labels TEXT NOT NULL,       -- JSON object: the config's, so that a listing reads no config; '' until it is read
    tagged_ns INTEGER NOT NULL  -- when it was last given a name here; 0: never
) STRICT;
INSERT INTO "image" VALUES('sha256:1111111111111111111111111111111111111111111111111111111111111111','sha256:2222222222222222222222222222222222222222222222222222222222222222','application/vnd.oci.image.manifest.v1+json',1,2,'{}',3);
CREATE TABLE image_layer (
    image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,  -- 0 is the bottom
    diff_id TEXT NOT NULL,
    blob_digest TEXT NOT NULL,  -- as stored, maybe compressed
    media_type TEXT NOT NULL,
    PRIMARY KEY (image_id, position)
) STRICT;
CREATE TABLE layer_form (       -- what a plain layer becomes when it is compressed for a push
    diff_id TEXT NOT NULL,
    media_type TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (diff_id, media_type)
) STRICT;
CREATE TABLE lease (            -- what an interrupted pull has, kept so that it can go on
    owner TEXT NOT NULL,        -- the full reference that is pulled
    digest TEXT NOT NULL,       -- of a blob, or a diff id
    expires_ns INTEGER NOT NULL,
    PRIMARY KEY (owner, digest)
) STRICT;
CREATE TABLE network (          -- bridge networks; what lives of them is on the host
    name TEXT PRIMARY KEY,
    bridge TEXT NOT NULL,       -- the host's device
    subnet TEXT NOT NULL        -- "172.30.0.0/16"; the first address is the bridge's
) STRICT;
CREATE TABLE repository_digest ( -- under what digest a repository has an image: after a pull or a push
    repository TEXT NOT NULL,   -- familiar form
    digest TEXT NOT NULL,       -- of the manifest, or of the index that it was chosen from
    image_id TEXT NOT NULL REFERENCES image(id) ON DELETE CASCADE,
    PRIMARY KEY (repository, digest)
) STRICT;
CREATE TABLE tag (
    repository TEXT NOT NULL,   -- familiar form: "busybox", "ghcr.io/a/b"
    tag TEXT NOT NULL,
    image_id TEXT NOT NULL REFERENCES image(id),
    PRIMARY KEY (repository, tag)
) STRICT;
CREATE TABLE volume (
    name TEXT PRIMARY KEY,
    created_ns INTEGER NOT NULL,
    anonymous INTEGER NOT NULL  -- 1: made for one container, and removed with it by rm -v or --rm
) STRICT;
INSERT INTO "volume" VALUES('0101010101010101010101010101010101010101010101010101010101010101',1001,1);
INSERT INTO "volume" VALUES('0202020202020202020202020202020202020202020202020202020202020202',1001,1);
INSERT INTO "volume" VALUES('cache',1002,0);
INSERT INTO "volume" VALUES('model',1002,0);
INSERT INTO "volume" VALUES('0303030303030303030303030303030303030303030303030303030303030303',1002,1);
INSERT INTO "volume" VALUES('named',1002,0);
INSERT INTO "volume" VALUES('0404040404040404040404040404040404040404040404040404040404040404',1002,1);
CREATE INDEX image_layer_diff ON image_layer(diff_id);
CREATE INDEX tag_image ON tag(image_id);
CREATE INDEX container_image ON container(image_id);
CREATE INDEX repository_digest_image ON repository_digest(image_id);
COMMIT;
PRAGMA user_version = 4;
