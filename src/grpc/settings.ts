import type { Server } from '@grpc/grpc-js';
import { AdminService } from './gen/broker/v1/admin.ts';
import type { ChangeSettingRequest, Setting } from './gen/broker/v1/inspect.ts';
import { tolerant, unary } from './operator-calls.ts';

/** The settings of a running node. What it throws is a BrokerError; anything else is a defect. */
export interface SettingsPort {
  listSettings(): Setting[];
  /** In force when it returns. */
  changeSetting(key: string, value: string): Setting;
}

/** Its calls belong to the service Admin. */
export function addSettings(server: Server, settings: SettingsPort, onDefect: (error: unknown) => void): void {
  const { listSettings, changeSetting } = AdminService;
  server.addService(
    { listSettings: tolerant(listSettings), changeSetting: tolerant(changeSetting) },
    {
      listSettings: unary(async () => ({ settings: settings.listSettings() }), onDefect),
      changeSetting: unary(
        async ({ key, value }: ChangeSettingRequest) => ({ setting: settings.changeSetting(key, value) }),
        onDefect,
      ),
    },
  );
}
