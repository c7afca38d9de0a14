{{/* Labels of every object. Argument: (dict "root" $ "part" "head"). */}}
{{- define "training.labels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
app.kubernetes.io/part-of: teleworld
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "training.own" .root }}
{{- end }}

{{/* A label that is ours alone, whatever KubeRay writes beside it. */}}
{{- define "training.own" -}}
teleworld/training: {{ .Release.Name }}
{{- end }}

{{/* A pod of the cluster. Argument: (dict "root" $ "part" name "group" settings "container" name). */}}
{{- define "training.pod" -}}
{{- $image := .root.Values.image -}}
{{- $gpus := int (default 0 .group.gpus) -}}
metadata:
  labels:
    {{- include "training.labels" . | nindent 4 }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Training writes its state before it goes.
  terminationGracePeriodSeconds: 120
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with $image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .group.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if gt $gpus 0 }}
  tolerations:
    - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ $image.repository }}:{{ default .root.Chart.AppVersion $image.tag }}{{ if gt $gpus 0 }}-cuda{{ end }}
      imagePullPolicy: {{ $image.pullPolicy }}
      securityContext:
        allowPrivilegeEscalation: false
        privileged: false
        capabilities: {drop: [ALL]}
      {{- if eq .part "head" }}
      ports:
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: client, containerPort: 10001}
      {{- end }}
      env:
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        - {name: HOME, value: /tmp}
      resources:
        {{- range $kind, $amounts := .group.resources }}
        {{ $kind }}:
          {{- toYaml $amounts | nindent 10 }}
          {{- if gt $gpus 0 }}
          nvidia.com/gpu: {{ $gpus }}
          {{- end }}
        {{- end }}
      volumeMounts:
        - {name: data, mountPath: /data, readOnly: true}
        - {name: runs, mountPath: /runs}
        - {name: tmp, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
  volumes:
    - name: data
      persistentVolumeClaim: {claimName: {{ .root.Values.dataClaim }}, readOnly: true}
    - name: runs
      persistentVolumeClaim: {claimName: {{ .root.Values.runsClaim }}}
    - name: tmp
      emptyDir: {sizeLimit: 50Gi}
    # Ray's object store lies here; its size counts as memory of the pod.
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ .group.shmSize }}}
{{- end }}

{{/* The words of a list as a shell reads them. */}}
{{- define "training.words" -}}
{{- range $number, $word := . -}}
{{- if $number }} {{ end -}}
{{- if regexMatch "^[\\w./:=,@%+-]+$" $word }}{{ $word }}{{ else }}'{{ $word | replace "'" "'\\''" }}'{{ end -}}
{{- end -}}
{{- end }}

{{/* What the job runs. */}}
{{- define "training.command" -}}
{{- $job := .Values.job -}}
{{- if $job.command -}}
{{- include "training.words" $job.command -}}
{{- else -}}
{{- $words := list "python" "-m" "teleworld.cli.main" "train" $job.network "--model" $job.model "--data" "/data" "--runs" "/runs" -}}
{{- $words = concat $words (list "--export" "/runs/checkpoints" "--minutes" (toString $job.minutes) "--threads" (toString $job.threads)) $job.arguments -}}
{{- include "training.words" $words -}}
{{- end -}}
{{- end }}
