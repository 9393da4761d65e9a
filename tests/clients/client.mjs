// npm's @kubernetes/client-node: typed calls, patches, apply, a watch, an informer, the object API.
import * as k8s from '@kubernetes/client-node';
import assert from 'node:assert';

const namespace = process.argv[2];
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);

const created = await core.createNamespacedConfigMap({
  namespace, body: { metadata: { name: 'c' }, data: { a: '1' } },
});
const seen = [];
const over = new Promise((resolve, reject) => {
  new k8s.Watch(config).watch(
    `/api/v1/namespaces/${namespace}/configmaps`,
    { resourceVersion: '0', fieldSelector: 'metadata.name=c' },
    (type, object) => {
      seen.push(type);
      if (type === 'DELETED') resolve();
    },
    (error) => { if (seen.at(-1) !== 'DELETED') reject(error ?? new Error('the watch ended')); },
  ).then((controller) => over.finally(() => controller.abort()));
});
await new Promise((resolve) => setTimeout(resolve, 300));
await core.replaceNamespacedConfigMap({
  name: 'c', namespace,
  body: { metadata: { name: 'c', resourceVersion: created.metadata.resourceVersion }, data: { a: '2' } },
});
await core.deleteNamespacedConfigMap({ name: 'c', namespace });
await over;
console.log(seen.join('\n'));
try {
  await core.readNamespacedConfigMap({ name: 'c', namespace });
} catch (error) {
  console.log(error.code);
}

const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const applied = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 's', namespace }, data: { k: 'v' } };
await objects.patch(applied, undefined, undefined, 'node', true, k8s.PatchStrategy.ServerSideApply);
const found = await objects.read({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 's', namespace } });
assert.equal(found.metadata.managedFields[0].manager, 'node');
await objects.patch({ ...applied, data: { k: 'w' } }, undefined, undefined, undefined, undefined, k8s.PatchStrategy.MergePatch);

const list = () => core.listNamespacedConfigMap({ namespace });
const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list);
const told = new Promise((resolve) => informer.on('add', (object) => object.metadata.name === 's' && resolve(object)));
await informer.start();
assert.equal((await told).data.k, 'w');
await informer.stop();
console.log('ok');
process.exit(0);
