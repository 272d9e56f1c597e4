/** Begins like the chains of CNI's plugins, as `k8s reset` knows them (reset/firewall-rules.ts). */
export const forwardChain = 'CNI-K8S-FORWARD'
