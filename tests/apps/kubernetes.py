# Holds a manifest against the schemas of Kubernetes, and its pods against what they promise about their end.
# Prints the configuration of hopgate that is in it.
#
#   kubernetes.py MANIFEST

import sys
import tomllib

import kubernetes_validate
import yaml

OLDEST = '1.29'  # sidecars are on without being asked for

with open(sys.argv[1]) as manifest:
    objects = list(yaml.safe_load_all(manifest))

for each in objects:
    for version in OLDEST, kubernetes_validate.latest_version():
        kubernetes_validate.validate(each, version, strict=True)

def only(kind):
    found = [each for each in objects if each['kind'] == kind]
    assert len(found) == 1, kind
    return found[0]

def seconds(text):
    assert text.endswith('s'), text
    return int(text[:-1])

text = only('ConfigMap')['data']['hopgate.toml']
config = tomllib.loads(text)
pod = only('Deployment')['spec']['template']['spec']
[hopgate], [app] = pod['initContainers'], pod['containers']
assert hopgate['restartPolicy'] == 'Always', 'a sidecar'

command, pause = app['lifecycle']['preStop']['exec']['command']
assert command == 'sleep'
own = seconds(config.get('shutdown_delay', '0s')) + seconds(config['shutdown_timeout'])
left_for_the_app = pod['terminationGracePeriodSeconds'] - int(pause) - own
assert left_for_the_app >= 10, left_for_the_app

ports = {port['name']: port['containerPort'] for port in hopgate['ports']}
assert str(ports['health']) == config['health']['listen'] and str(ports['http']) == config['server'][0]['listen']
for probe, path in ('startupProbe', '/healthz'), ('livenessProbe', '/healthz'), ('readinessProbe', '/readyz'):
    assert hopgate[probe]['httpGet'] == {'path': path, 'port': 'health'}, probe
[port] = only('Service')['spec']['ports']
assert port['targetPort'] == 'http'

print(text)
