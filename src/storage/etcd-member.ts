import { setTimeout as sleep } from 'node:timers/promises'
import { describeError } from '../base/errors.ts'
import type { Logger } from '../base/logger.ts'
import type { Component } from '../components/component.ts'
import { etcd, etcdPeerUrl } from '../components/etcd.ts'
import { processComponent } from '../components/process-component.ts'
import { readNodeRecord, updateNodeRecord } from '../config/facts.ts'
import { etcdClientUrl } from '../config/ports.ts'
import { etcdClientIdentity } from '../pki/etcd.ts'
import { Enrolment } from './enrolment.ts'
import { EtcdProxy } from './etcd-proxy.ts'
import { etcdStorage } from './etcd-storage.ts'
import { Learners } from './learners.ts'
import { MemberCare } from './member-care.ts'
import { Membership } from './membership.ts'
import type { Storage, StorageOptions } from './storage.ts'
import { SuccessionWatch } from './succession-watch.ts'

const joinAgainMs = 5_000

/** The etcd of the servers themselves: this one's member is a component, and the daemon stands in front of all of them. */
export function etcdMember(options: StorageOptions): Storage {
  const { config, addresses, paths, joining } = options
  const { nodeName } = config
  const log = options.log.child({ component: 'etcd' })
  const tls = () => etcdClientIdentity(options.pki.etcd)
  const peerUrl = () => etcdPeerUrl(addresses().nodeIp)
  const joined = Promise.withResolvers<void>()
  const enrolment =
    joining &&
    new Enrolment({
      ...{ nodeName, peerUrl, memberDir: paths.memberDir, queue: joining.queue, tls, log },
      others: () => membership.others,
      onJoined: joined.resolve,
    })
  if (enrolment === undefined) joined.resolve()
  const member = processComponent(etcd(options, enrolment), options)
  let restart: Promise<void> | undefined
  const membership = new Membership({
    ...{ nodeName, peerUrl, ownEndpoint: etcdClientUrl, tls, log },
    others: readNodeRecord(paths).otherMembers ?? [],
    remember(otherMembers) {
      try {
        updateNodeRecord(paths, { otherMembers })
      } catch (error) {
        log.warn({ reason: describeError(error) }, 'cannot remember the members of etcd on other servers')
      }
    },
    onLook({ own }) {
      if (!enrolment?.isUnderWay) return
      if (own !== undefined && !own.isLearner) enrolment.finish()
      // It was dropped, since it got no further: with what it has it is never let in again.
      else if (own === undefined && enrolment.initialCluster !== undefined)
        restart ??= joinAgain(member, { enrolment, log }).finally(() => (restart = undefined))
    },
  })
  const others = () => membership.others
  const succession = new SuccessionWatch({ paths, others, prefix: config.etcdPrefix ?? '' })
  const proxy = new EtcdProxy({
    ...{ ...options, endpoints: membership.endpoints, tls },
    own: {
      endpoint: etcdClientUrl,
      async follow(members, signal) {
        void succession.follow(() => members.serves(etcdClientUrl), signal)
        await membership.follow(members, signal)
        await enrolment?.leaveQueue()
      },
      trouble: () =>
        succession.trouble ??
        (enrolment?.isUnderWay || membership.listed.length === 0 || membership.own !== undefined
          ? undefined
          : 'this server has no member of etcd any more, since it was removed; end what runs here with "k8s stop --pods" and "k8s reset", and join again'),
    },
  })
  return {
    ...etcdStorage(options, [member, proxy]),
    failed: succession.lost,
    joined: joined.promise,
    membership,
    learners: new Learners({ membership, tls, log }),
    care: new MemberCare({ server: () => ({ address: etcdClientUrl, tls: tls() }), peerUrl, log }),
  }
}

/** Never rejects: it is tried until it is in, or the daemon ends. */
async function joinAgain(
  member: Component,
  { enrolment, log }: { enrolment: Enrolment; log: Logger },
): Promise<void> {
  enrolment.again()
  while (enrolment.isUnderWay) {
    try {
      await member.stop(AbortSignal.timeout(member.stopTimeoutMs))
      await member.init()
      await member.start(AbortSignal.timeout(member.readyTimeoutMs))
      return
    } catch (error) {
      log.warn({ reason: describeError(error) }, 'cannot join the etcd of the others again yet')
    }
    await sleep(joinAgainMs, undefined, { ref: false })
  }
}
