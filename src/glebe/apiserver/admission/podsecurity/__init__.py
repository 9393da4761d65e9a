"""PodSecurity: the Pod Security Standards (``k8s.io/pod-security-admission``).

``checks`` are the single rules, ``standards`` says which belong to which level in which version, ``policy`` reads a
namespace's labels, ``plugin`` refuses, warns and notes.
"""
